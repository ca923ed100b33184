# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# verify: both ends compared while they are written. The state folder holds
#
#   verdict                equal or different, when, at which revisions, how many relationships
#   differences.ndjson     what differs: the updates that would make the target equal

# pairs: how many paired records spice-apply has written
pairs() { grep -a -c '"paired":true' "$state/applied.ndjson" 2>/dev/null || true; }

# next_pair: waits for one that is newer than this call; sets source_revision and target_revision
next_pair() {
    had=$(pairs) naps=0
    until [ "$(pairs)" -gt "${had:-0}" ]; do
        [ -n "$(at_work follow)" ] || fail 75 "follow does not run, so nothing says which revisions belong together" \
            "run: $me follow; then: $same"
        naps=$((naps + 1))
        [ $naps -lt 600 ] || fail 75 "spice-apply has paired no revisions for a minute: is it behind?" "look: $me status; then run: $same"
        sleep 0.1
    done
    grep -a '"paired":true' "$state/applied.ndjson" | tail -n 1 >"$work/pair"
    source_revision=$(field sourceRevision "$work/pair")
    target_revision=$(field targetRevision "$work/pair")
}

# compare_pair FLAGS...: both ends at the pair's revisions, as of $as_of: what differs is in differences.ndjson, what
# cannot be told at this pair in $work/aside. Sets $status to the code of spice-diff, or of an export that failed
compare_pair() {
    rm -f "$work/aside" "$work/a" "$work/b"
    : >"$work/aside"
    mkfifo "$work/a" "$work/b"
    spice-export --context="$to" --at "$target_revision" --no-schema --expiry-precision "$precision" ${jobs:+--jobs "$jobs"} >"$work/a" &
    target_reader=$!
    started $target_reader
    spice-export --context="$from" --at "$source_revision" --no-schema --expiry-precision "$precision" ${jobs:+--jobs "$jobs"} >"$work/b" &
    source_reader=$!
    started $source_reader
    spice-diff --as-of "$as_of" --spool "$spool" --set-aside "$work/aside" "$@" "$work/a" "$work/b" >"$state/differences.ndjson" &
    comparer=$!
    started $comparer
    wait $comparer
    status=$?
    [ $status -eq 0 ] || [ $status -eq 3 ] || kill -TERM $target_reader $source_reader 2>/dev/null
    for reader in $target_reader $source_reader; do
        wait "$reader"
        code=$?
        # Of a comparer that ended first the readers only lost their reader.
        case $code-$status in
        0-* | 141-* | 143-*) ;;
        *) status=$code ;;
        esac
    done
    children=''
}

# as_of_later SECONDS: sets as_of to an instant that is so far away
as_of_later() { until=$(($(date +%s) + $1)) && as_of=$(date -u -d "@$until" +%Y-%m-%dT%H:%M:%SZ); }

verdict() { echo "$1 since $(date -u +%Y-%m-%dT%H:%M:%SZ): $2" | keep verdict || exit; }

verify_step() {
    alone copy cutover reverse resync
    copied
    look_at_both
    if grep -q '^prune=.' "$state/following" 2>/dev/null && [ "$(kind source)" = PostgreSQL ]; then
        fail 2 "follow --prune deletes what verify has to look up in the spool of a PostgreSQL source" "run follow without --prune; then: $same"
    fi
    took=30 round=1
    set --
    while :; do
        next_pair
        as_of_later $((2 * took + 30))
        say "comparing $to at $target_revision with $from at $source_revision${1:+: $set_aside relationships that could not be told before}"
        began=$(date +%s)
        compare_pair "$@"
        took=$(($(date +%s) - began))
        case $status in
        0 | 3) ;;
        4) fail 4 "the ends could not be compared: a revision left the history meanwhile" \
            "raise --datastore-gc-window, or read faster with --jobs; then run: $same" ;;
        *) fail_of "spice-export or spice-diff" "$status" "the ends could not be compared" ;;
        esac
        [ "$(date +%s)" -lt "$until" ] || continue # some may have expired in between
        [ $status -eq 0 ] || {
            count=$(grep -c '^{"update"' "$state/differences.ndjson")
            verdict different "$count at $source_revision and $target_revision"
            say "the first of them:"
            grep '^{"update"' "$state/differences.ndjson" | head -n 5 >&2
            fail 3 "$to differs from $from in $count relationships; all of them: $state/differences.ndjson" \
                "somebody else writes to $to, or something is wrong: find out which" \
                "to repair it: $me resync; then $me follow; then run: $same"
        }
        set_aside=$(wc -l <"$work/aside")
        [ "$set_aside" -gt 0 ] || break
        [ $round -lt 20 ] || fail 75 "$set_aside relationships are written all the time, and could not be told in $round rounds" "run: $same"
        round=$((round + 1))
        mv "$work/aside" "$work/only"
        set -- --only "$work/only"
    done
    verdict equal "at $source_revision and $target_revision, in $round rounds"
    rm -f "$state/differences.ndjson"
    say "proven equal: $to holds what $from holds, as of these revisions" "next: $me cutover"
}
