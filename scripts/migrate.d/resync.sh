# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# resync: makes the target equal again without emptying it, from a new revision on, while both are written. For a
# target that has drifted, and for one that has lost its history. Killed in the middle, it begins anew.

resync() {
    alone copy cutover reverse verify
    [ "$procedure" = live ] || fail 2 "this migration was planned with --fenced" "run: $me copy --again --on-conflict touch"
    [ ! -r "$state/switched" ] || fail 2 "the switch to $to was ordered: a resync would take back what was written there since" \
        "what is written to $to comes back to $from with: $me reverse"
    [ -r "$state/copy" ] || fail 2 "nothing has been copied" "run: $me copy"
    stop_step follow "resync takes over from here: follow has ended as it should"
    look_at_both
    # Of a follow that was killed its lock is left; of a resync that was, or that failed, in-doubt.
    if grep -q ambiguousUntil "$state/position" 2>/dev/null || [ -e "$state/follow.lock" ] || [ -e "$state/in-doubt" ]; then
        say "a write of the process before this one may still be applied late: waiting 30 s"
        run sleep 30
        rm -f "$state/in-doubt" "$state/follow.lock"
    fi
    mark resyncing
    archive
    begin_at_head
    revision=$(cat "$state/revision")
    capture
    # Relationships of the source may need its schema. Where others stand against it, the comparison removes them,
    # and follow brings it.
    header_of --at "$revision"
    run spice-import --context="$to" ${unnamed:+--same-datastore} --no-trailer --schema write --on-conflict skip --quiet "$work/header" >"$work/imported" ||
        [ "$status" -eq 1 ] || fail_of spice-import "$status" "the schema of $from could not be brought to $to"
    [ "$status" -eq 0 ] || say "$to does not take the schema of $from yet; going on"
    mkfifo "$work/a" "$work/b" "$work/updates"
    spice-export --context="$to" --settle 0s --no-schema --expiry-precision "$precision" ${jobs:+--jobs "$jobs"} >"$work/a" &
    target_reader=$!
    started $target_reader
    spice-export --context="$from" --at "$revision" --no-schema --expiry-precision "$precision" ${jobs:+--jobs "$jobs"} >"$work/b" &
    source_reader=$!
    started $source_reader
    spice-diff --exit-zero "$work/a" "$work/b" >"$work/updates" &
    comparer=$!
    started $comparer
    : | keep in-doubt || exit
    spice-apply --context="$to" ${unnamed:+--same-datastore} ${lanes:+--jobs "$lanes"} ${max_rps:+--max-rps "$max_rps"} ${on_reject:+--rejects "$on_reject"} \
        <"$work/updates" >>"$state/applied.ndjson" &
    applier=$!
    started $applier
    failed='' partial=''
    wait $applier
    code=$?
    case $code in
    0) ;;
    3) partial=yes ;;
    *) failed="spice-apply $code" ;;
    esac
    [ -n "$failed" ] || rm -f "$state/in-doubt"
    [ -z "$failed" ] || kill -TERM $comparer $target_reader $source_reader 2>/dev/null
    # What ended first made the others end: a stream that was cut (65), a reader that has left (141, 143).
    for ended in "spice-diff $comparer" "spice-export $target_reader" "spice-export $source_reader"; do
        wait "${ended#* }"
        code=$?
        case $code-${failed##* } in
        0-* | 141-?* | 143-?*) ;;
        *-65 | *-) failed="${ended% *} $code" ;;
        esac
    done
    stop_capture
    [ -z "$failed" ] || fail_of "${failed% *}" "${failed#* }" "the resync is not finished: $to lies somewhere between what it was and $from"
    mark resynced
    [ -z "$partial" ] || fail 3 "updates that $to refused are in $on_reject" "see what spice-apply says above; then: $me follow"
    say "$to was made equal to $from as of revision $revision; what was written since is captured" "next: $me follow; then: $me verify"
}

# archive: what belongs to the revision from which was followed until now
archive() {
    old=$state/before-$(date -u +%Y%m%dT%H%M%SZ)
    [ ! -e "$old" ] || { # of a resync that was killed in this second
        sleep 1
        old=$state/before-$(date -u +%Y%m%dT%H%M%SZ)
    }
    mkdir "$old" || fail 1 "cannot make $old" "make space; then run: $same"
    for file in revision captured position applied.ndjson verdict differences.ndjson checks.ndjson following fence end drained second paired.ndjson verified; do
        [ ! -e "$state/$file" ] || mv "$state/$file" "$old/" || fail 1 "cannot move $state/$file" "run: $same"
    done
    for file in "$spool" "$spool".*; do
        [ ! -e "$file" ] || mv "$file" "$old/" || fail 1 "cannot move $file" "run: $same"
    done
    say "what was captured until now is in $old"
}
