# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# plan

# fence_text: how writes to the source are stopped
fence_text() {
    cat <<END
   - let the proxy in front of $from, or the applications, refuse WriteRelationships, DeleteRelationships,
     ImportBulkRelationships and WriteSchema, for everybody but this migration;
   - give every SpiceDB process of $from two preshared keys beforehand (--grpc-preshared-key A,B), A for the
     applications and B for this migration; to fence, restart them with B alone. That stops reads, too;
END
    if [ "$procedure" = live ]; then
        cat <<END
   - restart them with --datastore-readonly; not with an in-memory datastore, which a restart empties. Then no
     marker can be written, which costs: on PostgreSQL nothing proves that the last write was seen, so both
     ends are compared before the switch. And there is no way back by reverse until it takes writes again.
END
    else
        cat <<END
   - restart them with --datastore-readonly; not with an in-memory datastore, which a restart empties. It
     holds when this ends with 77:  spice-revision --context $(quoted "$from") --mark
END
    fi
}

plan_fenced() {
    [ "$(kind source)" != Spanner ] || cat <<END
  watch     Spanner's leaves the expiry of relationships out, so $from cannot be followed: writes have to be
            stopped from copy to switch
END
    cat <<END
  history   $from must keep more than the copy takes (--datastore-gc-window: ${gc_window:-24h unless it was set;
            no API tells})

1. Fence: stop all writes to $from. Reads go on. Any one of these:
$(fence_text)
   Wait a minute, for writes under way. What is written after the snapshot is NOT on $to.
2. Copy, and prove the copy:       $me copy$options
   Killed, cut, refused: the same command goes on.
3. Just before the switch:         $me check$settle_flag
   0: equal, so the fence held. 3: different, do not switch.
4. Switch reads and writes of all applications to $to. Zedtokens of $from say nothing there.
5. Leave $from as it is, and fenced. Until the first write to $to the way back is to point the
   applications at $from again and to lift the fence.
END
}

plan_live() {
    back="The way back, as soon as $to is written: $me reverse
   brings what is written to $to back to $from."
    [ "$(kind target)" != Spanner ] || back="There is no way back by following, for $to is on Spanner. Until the first
   write to $to it is to point the applications at $from again and to lift the fence."
    cat <<END
  watch     $from tells of its changes
  history   ${gc_window:-24h unless --datastore-gc-window of $from was set; no API tells (plan --gc-window)}.
            It must be more than any pause between copy and follow

1. Copy, while applications write:      $me copy$options
   Changes are captured meanwhile. Killed, cut, refused: the same command goes on.
2. Follow, in a terminal of its own:    $me follow
   For minutes or weeks. An empty transaction every 30 s keeps its place in the history of $from.
3. Look at it, as often as you like:    $me status
4. Prove both ends equal, also under writes: $me verify
   With --checks 1000 it also asks both who has which permission. Different: somebody else writes to $to.
   $me resync makes it equal again, and stops follow for it; then follow and verify.
   That is the way on, too, where $from has lost the history that follow needs.
5. Cut over, within an hour of that:    $me cutover
   It says when to fence, that is, to stop all writes to $from, and when to switch: about a second later.
   How to fence; any one of these, and only one under which this migration can still write to $from is quick
   and exact:
$(fence_text)
6. $back
   Give up before the switch: $me abort
END
}

# look_at_watch: does the source tell of its changes?
look_at_watch() {
    head=$(field token "$work/source")
    run spice-watch --context="$from" --since "$head" --until-quiet 100ms --settle 0s --quiet >/dev/null 2>"$work/watch"
    [ "$status" -ne 0 ] || return 0
    cat "$work/watch" >&2
    ! grep -q -e 'cannot be followed' "$work/watch" ||
        fail 1 "$from cannot be followed: the above says why" \
            "migrate with writes stopped from copy to switch: $fenced_plan"
    ! grep -q -i -e unimplemented -e WatchService -e 'watch.*disabled' "$work/watch" ||
        fail 1 "$from does not tell of its changes: Watch is off there" \
            "start its SpiceDB without --datastore-disable-watch-support, and its PostgreSQL with track_commit_timestamp=on" \
            "or migrate with writes stopped from copy to switch: $fenced_plan"
    fail_of spice-watch "$status" "the changes of $from cannot be watched"
}

plan() {
    alone copy follow cutover reverse
    look_at_both
    [ "$procedure" = fenced ] || look_at_watch
    policy=$on_conflict
    if [ -r "$state/copy" ]; then
        policy=${policy:-skip} there="copy $(cat "$state/copy")"
    elif [ -n "$policy" ]; then
        there="may hold relationships (--on-conflict $policy); its schema fits"
    else
        there="holds no relationships; it has no schema, or the same"
    fi
    fit
    printf '%s\n' "procedure=$procedure" "from=$from" "to=$to" "from_datastore=$from_id" "to_datastore=$to_id" \
        "settle=$settle" "gc_window=$gc_window" "source=$(kind source)" "target=$(kind target)" | keep ends || exit
    if [ -n "$settle" ]; then
        settles="$settle (--settle)"
    elif [ "$(field settles "$work/source")" = true ]; then
        settles="35 s: below a revision of $from late writes can appear" # the default of spice-export
    else
        settles="no wait: revisions of $from are stable at once"
    fi
    expiry=microsecond
    [ "$precision" = us ] || expiry="second (MySQL keeps no more)"
    {
        cat <<END
Plan: $from -> $to, $title. Nothing was written to either server.

  source    $from: $(kind source), datastore $from_id
  target    $to: $(kind target), datastore $to_id
            $there
  settling  $settles
  expiry    is compared to the $expiry
END
        [ -z "$unnamed" ] || cat <<END
  mixed up? Neither server names its datastore (SpiceDB v1.45 and older), so nothing would notice if both
            contexts led to the same one. Make sure that they do not
END
        "plan_$procedure"
    } | tee "$state/plan.txt"
    say "planned; nothing was written to either server" "next: $after_plan"
}
