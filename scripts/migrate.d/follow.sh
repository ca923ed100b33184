# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# follow, and reverse, which follows the other way.

# both_run NAME SOURCE SPOOL POSITION APPLIED TARGET WATCH-FLAGS...: spice-watch into a spool and spice-apply from it,
# each begun again when it ends with 75, until one ends otherwise: its code is then in $watched or $applied
both_run() {
    from_end=$1 to_end=$2 into=$3 position=$4 record=$5
    shift 5
    rm -f "$state/$command.stop" "$work/ended" "$work"/*.code
    mkfifo "$work/ended" || fail 1 "cannot make a pipe in $state" "give --state a folder on a local disk with space"
    exec 4<>"$work/ended" # so that nobody waits for a reader
    keep_running watched spice-watch --context="$from_end" --spool "$into" --spool-segment "$spool_segment" \
        --heartbeat "$heartbeat" ${settle:+--settle "$settle"} "$@" &
    watching=$!
    started $watching
    keep_running applied spice-apply --context="$to_end" ${unnamed:+--same-datastore} --spool "$into" --position "$position" \
        ${lanes:+--jobs "$lanes"} ${max_rps:+--max-rps "$max_rps"} ${on_reject:+--rejects "$on_reject"} \
        ${on_schema:+--schema "$on_schema"} ${prune:+"$prune"} >>"$record" &
    applying=$!
    started $applying
    read -r first <&4
    kill -TERM $watching $applying 2>/dev/null
    wait $watching
    wait $applying
    children=''
    watched=$(cat "$work/watched.code") applied=$(cat "$work/applied.code")
    say "$first ended first: spice-watch with $watched, spice-apply with $applied"
}

# both_ended SOURCE TARGET: says why, and what to do
both_ended() {
    [ "$watched" -ne 4 ] && [ "$applied" -ne 4 ] || fail 4 \
        "changes of $1 are lost: they left its history before they were captured. $2 cannot become equal by following" \
        "what to do now: docs/cutover.md, \"History lost\". In short: $lost_next"
    case $first in
    watched) program=spice-watch code=$watched ;;
    *) program=spice-apply code=$applied ;;
    esac
    [ "$code" -ne 0 ] || fail 1 "$program was stopped by somebody else" "run: $same"
    [ "$code" -ne 3 ] || fail 3 "$program ended with 3: the updates that $2 refused are in $on_reject" "see what it says above; then run: $same"
    fail_of "$program" "$code" "$command has ended"
}

follow() {
    alone copy cutover reverse resync
    copied
    [ ! -r "$state/switched" ] || fail 2 "the switch to $to was ordered: $(cat "$state/switched")" \
        "what is written to $to now comes back to $from with: $me reverse"
    look_at_both
    # What an interrupted cutover knew of a fence counts no more.
    rm -f "$state/fence" "$state/end" "$state/drained" "$state/second" "$state/verified" "$state/aborted"
    printf '%s\n' "heartbeat=$heartbeat" "settle=$settle" "prune=$prune" "on_reject=$on_reject" "on_schema=$on_schema" \
        "since=$(date -u +%Y-%m-%dT%H:%M:%SZ)" | keep following || exit
    say "following $from; status: $me status; the switch: $me cutover"
    lost_next="raise --datastore-gc-window on $from, then: $me resync"
    both_run "$from" "$to" "$spool" "$state/position" "$state/applied.ndjson" --since "$(captured_since)"
    both_ended "$from" "$to"
}

# unfinished: the step that has to come to its end before anything can be followed, if one has
unfinished() {
    case $(cat "$state/copy" 2>/dev/null) in
    proven* | copied* | resynced*) ;;
    resyncing*) echo resync ;;
    *) echo copy ;;
    esac
}

# way_back KIND: what is said of it, by the kind of the target
way_back() {
    case $1 in
    Spanner) echo "there is no way back by following, for $to is on Spanner: what is written to $to now stays there" ;;
    *) echo "next: $me reverse, so that the way back stays open" ;;
    esac
}

# copied: refuses what needs a copy
copied() {
    [ "$procedure" = live ] || fail 2 "this migration was planned with --fenced: nothing is captured" \
        "copy and check are its steps; for the other procedure plan again, with another --state"
    case $(unfinished) in
    resync) fail 2 "a resync is not finished: $to lies somewhere between what it was and $from" "run: $me resync" ;;
    copy)
        [ -s "$state/copy" ] || fail 2 "nothing has been copied" "run: $me copy"
        fail 2 "the copy is not finished: $(cat "$state/copy")" "run: $me copy"
        ;;
    esac
}

reverse() {
    alone copy follow cutover
    [ -r "$state/switched" ] || fail 2 "the switch was not ordered: what is on $to comes from $from" "run: $me cutover"
    look_at_both
    [ "$(kind target)" != Spanner ] || fail 1 "$to is on Spanner, which cannot be followed: its Watch leaves the expiry of relationships out" \
        "the way back is a migration from $to into an empty server, with writes stopped: plan it with --fenced and another --state"
    settle=$settle_given
    lost_next="$from lacks what was written to $to since; the way back is a migration from $to into an empty server"
    say "following $to back to $from, from where the switch was ordered: only what others wrote travels"
    both_run "$to" "$from" "$state/reverse.ndjson" "$state/reverse.position" "$state/reverse-applied.ndjson" \
        --since-file "$state/paired.ndjson" --skip-applied
    both_ended "$to" "$from"
}
