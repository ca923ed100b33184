# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# cutover, and abort.
#
# What cutover knows, each file written once its line is true; a follow that is begun again removes the first three:
#   fence     the fence was confirmed, at this time in milliseconds
#   end       the marker: whatever was committed before the fence comes before it
#   drained   the segment and size of the spool when everything through end was in it
#   paired.ndjson, switched, verified

# the_word: waits until somebody says that writes to the source are stopped. That begins the write downtime
the_word() {
    if [ -n "$fence_command" ]; then
        say "fencing: $fence_command"
        run sh -c "$fence_command" >&2 || fail 1 "the fence command ended with $status: nothing was stopped by this, and nothing is switched" \
            "see what it says above; follow goes on; then run: $same"
    else
        say "stop all writes to $from now; how: $state/plan.txt, step 5. Nothing else has to be done before the switch" \
            "when they are stopped, type: fenced"
        read -r word || fail 2 "nobody said that writes to $from are stopped: stdin has ended. Nothing is switched, follow goes on" \
            "run this on a terminal, or with --fence-command COMMAND"
        [ "$word" = fenced ] || fail 2 "not fenced, but \"$word\": nothing is switched, follow goes on" "run: $same"
    fi
    fenced=$(now)
    # The verdict was young when this began, and somebody may have waited for long. A minute does not matter.
    [ -n "$fence_command" ] || judge_verdict 60000
    [ -z "$unsafe" ] || fail 1 "not safe to cut over any more: $unsafe. Nothing was switched, follow goes on" \
        "lift the fence; then run: $me verify; then: $same"
    echo "$fenced" >"$state/fence"
}

# marker: a revision of the source after everything that is committed there, into $marker. Where it takes no writes:
# its head, which is exact where revisions are numbers; nothing where they are not
marker() {
    marker=''
    spice-revision --context="$from" --mark >"$work/mark" 2>"$work/mark.said" &
    marking=$!
    children="${applying:-} $marking"
    wait $marking
    status=$?
    children=${applying:-}
    if [ $status -eq 0 ]; then
        read -r marker <"$work/mark"
        return
    fi
    cat "$work/mark.said" >&2
    [ $status -eq 77 ] && grep -q -i read-only "$work/mark.said" ||
        fail_of spice-revision "$status" "no marker could be written to $from. Nothing is switched; writes are still stopped"
    readonly=yes
    case $(kind source) in
    PostgreSQL) ;;
    *)
        run spice-revision --context="$from" --head --settle 0s >"$work/mark" ||
            fail_of spice-revision "$status" "no end could be found. Nothing is switched; writes are still stopped"
        read -r marker <"$work/mark"
        ;;
    esac
}

# until_marker TOKEN: drains to a marker. Behind the fence nothing has to settle: with --until the settle time only says for
# how long relationships that change twice are taken to have collided
until_marker() { drain --settle "$(settling)ms" --until "$1"; }

# drain FLAGS...: brings the rest into the spool with these flags; with $end at the same time onto the target.
#
# One call at a time. A database makes calls at the same time begin again for each other, for seconds at worst: 4,500
# updates drained in 3.5 to 4.5 s one by one, in 6.4 to 9.5 s by fours (measured on a busy machine, MariaDB 10.11;
# PostgreSQL 15 alike). And where one has overtaken another, a memory datastore has no stable snapshot to compare
# (docs/reliability.md). Where the target is far and the settle time long, --jobs 4 is quicker.
drain() {
    if [ -n "$end" ]; then
        spice-apply --context="$to" ${unnamed:+--same-datastore} --spool "$spool" --position "$state/position" --until "$end" \
            --jobs "${lanes:-1}" ${on_reject:+--rejects "$on_reject"} ${on_schema:+--schema "$on_schema"} \
            --quiet >>"$state/applied.ndjson" &
        applying=$!
        started $applying
    fi
    spice-watch --context="$from" --spool "$spool" --spool-segment "$spool_segment" "$@" &
    watching=$!
    started $watching
    wait $watching
    status=$?
    children=${applying:-}
    [ $status -eq 0 ] || drain_failed spice-watch $status
}

drain_failed() {
    [ -z "$children" ] || { kill -TERM "$children" && wait "$children"; } 2>/dev/null
    children=''
    [ "$2" -ne 4 ] || fail 4 "the last changes of $from are lost: they left its history. Nothing is switched" \
        "lift the fence; what to do then: docs/cutover.md, \"History lost\""
    fail_of "$1" "$2" "nothing is switched; writes are still stopped, and $to lacks the last of them"
}

# applied_all: waits for what drain has begun
applied_all() {
    [ -n "${applying:-}" ] || return 0
    wait "$applying"
    status=$?
    applying='' children=''
    [ $status -eq 0 ] || [ $status -eq 3 ] || drain_failed spice-apply $status
    [ $status -eq 0 ] || refused=yes
}

# by_others: the changes on stdin without what spice-watch itself says at a marker: states of relationships that collided
by_others() {
    grep -a -e '^{"transaction"' -e '^{"schema"' |
        awk -v end="$(cat "$state/end" 2>/dev/null)" -v second="$(cat "$state/second" 2>/dev/null)" -v third="${third:-}" '
            function at(marker) { return marker != "" && index($0, "{\"transaction\":{\"revision\":\"" marker "\"") == 1 }
            !at(end) && !at(second) && !at(third)'
}

# leaks: how many transactions of others came after everything through the first marker was captured
leaks() {
    read -r size segment <"$state/drained"
    later='' count=0
    for file in "$spool" "$spool".[0-9]*; do
        [ -f "$file" ] || continue
        if [ "${file##*/}" = "$segment" ]; then later=$size; elif [ -n "$later" ]; then later=0; else continue; fi
        tail -c +$((later + 1)) "$file" | by_others >"$work/leaked"
        [ -s "$work/leaked" ] || continue
        count=$((count + $(wc -l <"$work/leaked")))
        say "after the fence: $(head -n 1 "$work/leaked" | cut -c 1-300 | harmless)"
    done
    [ -n "$later" ] || {
        say "the spool has no $segment, where everything before the fence ends"
        count=1
    }
    echo "$count"
}

# note_drained: everything through the first end is in the spool, up to here
note_drained() {
    newest=$(segments | tail -n 1)
    echo "$(wc -c <"$newest") ${newest##*/}" | keep drained || exit
}

cutover() {
    alone copy reverse verify resync
    copied
    cleared=''
    if [ ! -r "$state/switched" ]; then
        to_the_switch
    else
        look_at_both
        say "the switch was ordered: $(cat "$state/switched")"
        [ ! -r "$state/verified" ] || {
            say "and both ends were compared: $(cat "$state/verified")" "$(way_back "$(kind target)")"
            return
        }
    fi
    [ -r "$state/verified" ] || {
        verify
        late_writes
    }
    say "$(way_back "$(kind target)"); leave $from fenced"
}

to_the_switch() {
    look_at_both
    on_reject=${on_reject:-$(followed on_reject)} on_schema=${on_schema:-$(followed on_schema)}
    # A marker behind it shows later writes as a leak. Without one, only a young fence is taken for still standing.
    fenced=$(cat "$state/fence" 2>/dev/null)
    age=$(($(now) - ${fenced:-0}))
    if [ -n "$fenced" ] && { [ -s "$state/end" ] || [ $age -lt 300000 ]; }; then
        say "going on behind the fence that was confirmed at $(date -u -d "@${fenced%???}" +%Y-%m-%dT%H:%M:%SZ), $((age / 1000)) s ago." \
            "If it was lifted since: stop this, run: $me abort"
    else
        measure
        judge_safety
        [ -z "$unsafe" ] || fail 1 "not safe to cut over: $unsafe. Nothing was stopped" "${remedy:-look: $me status}; then run: $same"
        the_word
    fi
    # From here on applications wait: as little as possible.
    stop_step follow "cutover takes over from here: follow has ended as it should"
    stopped_at=$(now) drained_at=$stopped_at
    readonly='' refused='' applying=''
    end=$(cat "$state/end" 2>/dev/null)
    if [ -z "$end" ]; then
        marker
        end=$marker
        [ -z "$end" ] || echo "$end" >"$state/end"
    fi
    if [ -n "$end" ]; then
        until_marker "$end"
        drained_at=$(now)
        behind_the_fence
    else
        quiet_source
    fi
    checked_at=$(now)
    applied_all
    last_pair >"$work/paired"
    [ -s "$work/paired" ] || fail 1 "spice-apply has left no paired record in $state/applied.ndjson. Nothing is switched" "run: $same"
    [ "$(field sourceRevision "$work/paired")" = "$(field sourceRevision "$state/position")" ] ||
        fail 1 "the last pair in $state/applied.ndjson is not that of the end. Nothing is switched; writes are still stopped" "run: $same"
    mv "$work/paired" "$state/paired.ndjson"
    verify_first=$verify_before_switch
    [ -n "$end" ] && [ -z "$refused" ] || verify_first=yes
    [ -z "$verify_first" ] || verify
    [ -z "$on_reject" ] || [ ! -s "$on_reject" ] || refused=yes
    [ -z "$refused" ] || say "updates that $to refused are in $on_reject: $to lacks them"
    switched_at=$(now)
    downtime=$(seconds_of $((switched_at - fenced)))
    say "SWITCH READS AND WRITES TO $to NOW" \
        "write downtime $downtime s, from the fence to this line: follow stopped $((stopped_at - fenced)) ms after the fence, all captured $((drained_at - fenced)), fence checked $((checked_at - fenced)), all applied $((switched_at - fenced))"
    echo "on $(date -u +%Y-%m-%dT%H:%M:%SZ), write downtime $downtime s" >"$state/switched"
    rm -f "$state/fence"
}

# behind_the_fence: with everything through the marker captured, a second one tells whether the fence holds
behind_the_fence() {
    [ -r "$state/drained" ] || note_drained
    marker
    [ -n "$marker" ] || marker=$end
    second=$marker
    if [ "$second" != "$end" ]; then
        first_end=$end end=''
        until_marker "$second"
        end=$first_end
    fi
    echo "$second" >"$state/second"
    leaked=$(leaks)
    [ "$leaked" -eq 0 ] || leak "$leaked"
}

leak() {
    [ -z "${applying:-}" ] || { kill -TERM "$applying" && wait "$applying"; } 2>/dev/null
    children=''
    rm -f "$state/fence" "$state/end" "$state/drained" "$state/second"
    fail 1 "the fence does not hold: $1 transactions were written to $from after it was confirmed. Do NOT switch" \
        "lift the fence, or what there is of it, and go on following: $me follow" \
        "find out who wrote (the lines above), close that way; then run: $same"
}

# late_writes: with applications at the target and both ends compared, was the source written since? Whoever has switched
# may have ended the source: then nothing can be asked
late_writes() {
    [ -r "$state/drained" ] && [ -s "$state/end" ] || return 0
    third=$(spice-revision --context="$from" --mark --quiet 2>/dev/null) || return 0
    run spice-watch --context="$from" --spool "$spool" --spool-segment "$spool_segment" --settle "$(settling)ms" --quiet --until "$third" || return 0
    leaked=$(leaks)
    [ "$leaked" -eq 0 ] || fail 1 "the fence did not hold: $leaked transactions were written to $from after it (above). $to lacks them" \
        "the switch STANDS. Close that way now; then write to $to by hand what of them still counts:" \
        "they are in $spool, after byte $(cut -d ' ' -f 1 "$state/drained") of $(cut -d ' ' -f 2 "$state/drained")"
}

# quiet_source: the end of a PostgreSQL that takes no writes. Silence is no proof, so both ends are compared
quiet_source() {
    say "$from takes no writes, so nothing marks the end: waiting until it is quiet for $quiet, which proves nothing;" \
        "both ends are compared before the switch"
    drain --settle 0s --quiet --until-quiet "$quiet"
    end=$(spice-revision "$spool") || fail_of spice-revision $? "nothing is switched; writes are still stopped"
    note_drained
    drain --settle 0s --quiet --until-quiet "$quiet"
    leaked=$(leaks)
    [ "$leaked" -eq 0 ] || leak "$leaked"
    second=$(spice-revision --context="$from" --head --settle 0s) || fail_of spice-revision $? "nothing is switched"
    echo "$second" >"$state/second"
    end=''
}

# verify: are both ends equal, at the end of the source and at the target's revision that belongs to it?
verify() {
    second=$(cat "$state/second")
    paired=$(field targetRevision "$state/paired.ndjson")
    say "comparing $from at $second with $to at $paired"
    as_of='' seconds=$(now)
    read_both --at "$second" --at "$paired" || not_verified
    seconds=$((($(now) - seconds) / 1000))
    [ "$source_read" = "$target_read" ] || read_again --at "$second" --at "$paired" || not_verified
    show "$from" "$to" || unequal
    echo "equal, ${source_read% *} relationships, digest ${source_read#* } ($precision)$but" >"$state/verified"
    say "equal: $to holds what $from held at the switch$but"
}

unequal() {
    verdict different "digests at $second and $paired, behind the fence"
    report="and please report it, with $state: this must not happen where nobody else writes to $to"
    [ ! -r "$state/switched" ] || fail 3 "$from and $to differ, and the switch was ordered" \
        "point reads and writes back at $from, and lift the fence" \
        "what was written to $to meanwhile comes to $from with: $me reverse" "$report"
    rm -f "$state/fence" "$state/end" "$state/drained" "$state/second"
    fail 3 "$from and $to differ. Nothing is switched: do not switch" \
        "lift the fence; then: $me follow" \
        "what differs: $me verify; to make $to equal: $me resync" "$report"
}

not_verified() {
    if [ "$status" -eq 4 ]; then
        [ -r "$state/switched" ] || fail 4 "the ends were not compared: a revision to compare has left the history. Nothing is switched; writes are still stopped" \
            "run: $same (without --verify-before-switch it does without the comparison)"
        fail 4 "the ends were not compared: a revision to compare has left the history. The switch STANDS, on the markers alone: leave $from fenced" \
            "raise --datastore-gc-window before the next one; next: $me reverse"
    fi
    if [ -r "$state/switched" ]; then
        say "the switch STANDS: leave reads and writes at $to, and $from fenced"
        fail_of spice-export "$status" "only the comparison after the switch is missing"
    fi
    fail_of spice-export "$status" "the ends could not be compared. Nothing is switched; writes are still stopped"
}

abort() {
    for step in copy cutover verify resync follow reverse; do
        stop_step $step "abort: $step has ended"
    done
    echo "on $(date -u +%Y-%m-%dT%H:%M:%SZ)" >"$state/aborted"
    if [ -r "$state/switched" ]; then
        through="nothing of it"
        [ ! -r "$state/reverse.position" ] ||
            through="what was written through revision $(field sourceRevision "$state/reverse.position") of $to"
        say "stopped. The switch to $to had been ordered $(cat "$state/switched")" \
            "of what was written to $to since, $from holds $through" \
            "next: to bring it up to date, run: $me reverse"
        return
    fi
    rm -f "$state/fence" "$state/end" "$state/drained" "$state/verdict"
    through="no changes"
    [ ! -r "$state/position" ] || through="the changes through revision $(field sourceRevision "$state/position") of $from"
    say "stopped. Nothing was switched, and nothing is deleted" \
        "$from is untouched: go on using it; if it is fenced, lift the fence" \
        "$to is stale: it holds the copy ($(cat "$state/copy" 2>/dev/null || echo 'not begun')) and $through. Nobody should read it" \
        "$spool holds captured changes, and is as confidential as $from" \
        "next: to go on after all, while $from still has the history: $me follow" \
        "or, to give up: empty $to, and delete $state"
}
