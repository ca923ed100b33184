# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# copy, and check.

transfer() {
    mkfifo "$work/stream"
    # A revision that was kept has settled.
    if [ -n "$revision" ]; then set -- --at "$revision"; else set -- ${settle:+--settle "$settle"}; fi
    spice-export --context="$from" --expiry-precision "$precision" ${jobs:+--jobs "$jobs"} "$@" >"$work/stream" &
    exporter=$!
    started $exporter
    spice-import --context="$to" ${unnamed:+--same-datastore} ${policy:+--on-conflict "$policy"} ${rejects:+--rejects "$rejects"} \
        ${jobs:+--jobs "$jobs"} <"$work/stream" >"$work/imported" &
    importer=$!
    started $importer
    wait $importer 2>/dev/null
    imported=$?
    # The importer sees the exporter's end at once: then it ends with 65. The exporter sees the importer's
    # only when it writes, so it is told.
    [ $imported -eq 0 ] || [ $imported -eq 65 ] || kill -TERM $exporter 2>/dev/null
    wait $exporter 2>/dev/null
    exported=$?
    children=''
    rm -f "$work/stream"
}

transfer_failed() {
    left="the copy is not finished"
    [ -r "$state/copy" ] || left="nothing was copied"
    [ "$procedure-$exported" != live-4 ] ||
        fail 4 "$left: revision $revision has left the history of $from" \
            "raise --datastore-gc-window on $from (and add --jobs), for the copy takes longer than it lasts" \
            "then empty $to, and begin anew at a new revision: $me copy --again"
    case $exported-$imported in
    *-0 | 143-65) fail_of spice-export "$exported" "$left" ;;
    0-* | 141-* | 143-*) fail_of spice-import "$imported" "$left" ;; # the exporter lost its reader
    *-65) fail_of spice-export "$exported" "$left" ;;                # the importer got a cut stream
    esac
    say "error: spice-import failed, too: $imported"
    fail_of spice-export "$exported" "$left"
}

# begin_at_head: takes the revision where copy and capture begin.
#
# In memory a snapshot can lack a transaction with a lower number that came late, for ever (docs/reliability.md), and a
# Watch from there does not tell of it. So there the capture begins a settle time earlier, at another head: what had
# not come then, it tells
begin_at_head() {
    settled_head
    rm -f "$state/captured"
    case $(kind source) in
    memory*)
        keep captured <"$work/revision" || exit
        settled_head
        ;;
    esac
    keep revision <"$work/revision" || exit
}

settled_head() {
    run spice-revision --context="$from" --head ${settle:+--settle "$settle"} >"$work/revision" ||
        fail_of spice-revision "$status" "no revision of $from to begin at"
}

# captured_since: where the capture begins
captured_since() { cat "$state/captured" 2>/dev/null || cat "$state/revision"; }

# capture: starts to write all changes after $revision into the spool, in the background
capture() {
    mkfifo "$work/ended"
    exec 4<>"$work/ended" # so that nobody waits for a reader
    keep_running capture spice-watch --context="$from" --since "$(captured_since)" --spool "$spool" \
        --spool-segment "$spool_segment" --heartbeat "$heartbeat" ${settle:+--settle "$settle"} &
    capture=$!
    started $capture
    naps=0
    until [ -s "$spool" ]; do # its header is there once the history was found whole
        [ ! -r "$work/capture.code" ] || capture_ended
        naps=$((naps + 1))
        [ $naps -lt 600 ] || fail 75 "spice-watch does not begin" "see what it says above; then run: $same"
        sleep 0.1
    done
}

capture_ended() {
    status=$(cat "$work/capture.code")
    [ "$status" -ne 0 ] || fail 1 "the capture of changes was stopped by somebody" "run: $same"
    [ "$status" -ne 4 ] || lost_history
    fail_of spice-watch "$status" "the changes of $from cannot be captured"
}

# stop_capture: everything that it has seen is in the spool then
stop_capture() {
    [ ! -r "$work/capture.code" ] || capture_ended
    kill -TERM "$capture"
    wait "$capture"
    children=''
    [ "$(cat "$work/capture.code")" -eq 0 ] || capture_ended
}

lost_history() {
    [ "$command" != resync ] || fail 4 "changes of $from are lost already: they left its history while the resync began" \
        "raise --datastore-gc-window on $from; then run: $same"
    fail 4 "changes of $from are lost: they left its history before they were captured. $to cannot become equal by following" \
        "raise --datastore-gc-window on $from, empty $to, and begin anew: $me copy --again"
}

copy() {
    alone follow cutover reverse resync
    before=''
    [ ! -r "$state/copy" ] || before=$(cat "$state/copy")
    if [ -n "$once_more" ]; then
        [ ! -r "$state/switched" ] ||
            fail 2 "the switch to $to was ordered: a new copy would bring back what was deleted there since" \
                "for another migration, plan with another --state"
        [ "$procedure" = fenced ] || before=''
    else
        case $before in
        resyncing*) fail 2 "a resync is not finished" "run: $me resync" ;;
        resynced*)
            say "the copy is $before; nothing was written" "next: $me follow; then: $me verify. (A new copy: --again)"
            return
            ;;
        proven*)
            say "the copy is $before; nothing was written" "next: $after_copy. (A new copy: --again)"
            return
            ;;
        copied* | unequal*)
            say "the copy is $before; comparing, not writing"
            look_at_both
            prove
            return
            ;;
        esac
    fi
    look_at_both
    policy=$on_conflict
    if [ -z "$before" ]; then
        fit
        [ "$procedure" = fenced ] || [ -z "$once_more" ] || forget_changes
    else
        policy=${policy:-skip}
        say "going on with the copy, $before; what is on $to stays (--on-conflict $policy)"
    fi
    revision=''
    if [ "$procedure" = live ]; then
        [ -s "$state/revision" ] || begin_at_head
        revision=$(cat "$state/revision")
        capture
    fi
    # From here on there may be relationships of ours on the target.
    mark begun
    transfer
    [ -n "$before" ] || [ $imported -ne 2 ] || rm -f "$state/copy" # refused before anything was written
    [ "$procedure" = fenced ] || stop_capture
    [ $imported -eq 0 ] || [ $imported -eq 3 ] || transfer_failed
    [ $exported -eq 0 ] || transfer_failed
    cat "$work/imported" >>"$state/imported.ndjson" || fail 1 "cannot write $state/imported.ndjson" "make space; then run: $same"
    if [ $imported -eq 3 ]; then
        mark partial
        fail 3 "not all of $from is on $to: $(field skipped "$work/imported") differ there and were skipped, $(field rejected "$work/imported") were refused${rejects:+ (now in $rejects)}" \
            "do not switch; the messages above name them (also in $state/copy.log)" \
            "what differs: $by_whom, add --on-conflict touch, which takes the source's" \
            "what was refused $to cannot hold: change it on $from, or do without it; then run: $same"
    fi
    mark copied
    prove
}

# forget_changes: what belongs to the revision of a copy that is not wanted any more
forget_changes() {
    rm -f "$state/verdict" "$state/differences.ndjson" "$state/checks.ndjson" "$state/second" "$state/paired.ndjson" "$state/verified" "$state/in-doubt"
    rm -f "$state/revision" "$state/captured" "$state/copy" "$state/following" "$state/position" "$state/fence" "$state/end" \
        "$state/drained" "$state/aborted" "$spool" "$spool".[0-9]* "$spool.lock" "$spool.lost"
    [ ! -r "$state/applied.ndjson" ] || mv "$state/applied.ndjson" "$state/applied.before.ndjson"
    before=''
}

check() {
    [ "$procedure" = fenced ] ||
        fail 2 "check compares both ends as they are now, and $from is being written: they always differ" \
            "how far $to is: $me status. cutover compares them by itself"
    [ -r "$state/copy" ] || fail 2 "nothing has been copied" "run: $me copy"
    look_at_both
    say "reading $from and $to as they are now"
    as_of='' seconds=$(date +%s)
    read_both --settle "$settle" --settle 0s || fail_of spice-export "$status" "the ends could not be compared"
    seconds=$(($(date +%s) - seconds))
    [ "$source_read" = "$target_read" ] ||
        read_again --settle "$settle" --settle 0s || fail_of spice-export "$status" "the ends could not be compared"
    show "$from" "$to" || fail 3 "$from and $to differ. Do not switch" \
        \
        "if $from was written since the copy: fence it, then $me copy --again --on-conflict touch; then check again" \
        "if that does not help, $to holds what $from does not (deleted there meanwhile, or written by others): empty it, plan with another --state, copy"
    say "equal: $to holds what $from holds$but" "next: if $from is fenced, switch reads and writes to $to now"
}
