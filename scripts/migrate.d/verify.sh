# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# verify: both ends compared while they are written. The state folder holds
#
#   verdict                equal, different or undecided; since when, at which revisions, how many relationships
#   differences.ndjson     what differs: the updates that would make the target equal
#   checks.ndjson          what both were asked and answered differently (--checks), or inconclusively: one of the two
#                          gave up at its maximum depth
#   checks                 how many relationships were asked about then: so many until the answers are alike

# next_pair: waits for one that is newer than this call; sets source_revision and target_revision
next_pair() {
    had=$(last_pair) patience=$((2 * $(heartbeat_of_follow) + 60000)) asked_at=$(now)
    until [ "$(last_pair)" != "$had" ]; do
        [ -n "$(at_work follow)" ] || fail 75 "follow does not run, so nothing says which revisions belong together" \
            "run: $me follow; then: $same"
        [ $(($(now) - asked_at)) -lt $patience ] || fail 75 "spice-apply has paired no revisions for $((patience / 1000)) s: is it behind?" \
            "look: $me status; then run: $same"
        sleep 0.1
    done
    last_pair >"$work/pair"
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
    spice-diff --as-of "$as_of" --spool "$spool" --deferred "$work/aside" "$@" "$work/a" "$work/b" >"$state/differences.ndjson" &
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

# verdict WORD WHAT [INSTANT]: what status and cutover go by; since now, unless an instant is given
verdict() { echo "$1 since ${3:-$(date -u +%Y-%m-%dT%H:%M:%SZ)}: $2" | keep verdict || exit; }

# undecided WHAT: something was seen that an equal verdict must not survive, however this ends
undecided() {
    grep -q '^different' "$state/verdict" 2>/dev/null || verdict undecided "$1, at $source_revision and $target_revision"
}

# compare_schemas: at the pair's revisions; sets $status to 0, 3 where they differ, or 75 where one was changed after
# its revision, so that nobody can tell. What differs is in $work/schemas
compare_schemas() {
    run spice-check --context="$from" --at "$source_revision" --sample 0 --quiet >"$work/schema" 2>"$work/schemas"
    [ "$status" -ne 0 ] ||
        run spice-check --context="$to" --at "$target_revision" --quiet "$work/schema" >/dev/null 2>"$work/schemas"
    case $status in
    0 | 3 | 75) ;;
    *)
        cat "$work/schemas" >&2
        fail_of spice-check "$status" "the schemas could not be compared"
        ;;
    esac
}

# schemas_agree: false where that has to be looked at again, at a later pair. A change on its way looks like a
# difference: spice-apply brings the newest text, which may be ahead of the pair. So it is one only when it is still
# there after the time that a change may take
schemas_agree() {
    compare_schemas
    if [ "$status" -eq 0 ]; then
        unlike_since=''
        return 0
    fi
    if [ -z "$unlike_since" ]; then
        measure
        unlike_since=$(now) in_flight=$(($(settling) + ${behind:-0} + 10000))
        undecided "the schemas differ, or have just been changed"
        say "the schemas differ, or have just been changed: looking at a later pair, too"
        return 1
    fi
    [ $(($(now) - unlike_since)) -ge "$in_flight" ] || return 1
    reason=$(sed -n 's/.*\(the schema of .*\)/\1/p' "$work/schemas" | head -n 1)
    [ "$status" -eq 3 ] || fail 75 "${reason:-the schemas cannot be compared}" "when nobody changes the schema, run: $same"
    verdict different "$reason, at $source_revision and $target_revision"
    fail 3 "$reason. That is what $to has otherwise than $from" \
        "see whether follow could not bring it over ($state/follow.log), or somebody else wrote the schema of $to" \
        "to make it that of $from: $me resync; then $me follow; then run: $same"
}

# ask_both: do both ends give the same answers? A disagreement is asked again at later pairs, on both: servers judge
# expiry and the like by their clocks, keep what they have answered once at a revision, and a PostgreSQL revision does
# not show transactions that overlap it. Sets $answers
ask_both() {
    say "asking $from about $checks relationships, and $to the same"
    mkfifo "$work/snapshot"
    spice-export --context="$from" --at "$source_revision" --no-schema --quiet ${jobs:+--jobs "$jobs"} >"$work/snapshot" &
    exporter=$!
    started $exporter
    spice-check --context="$from" --at "$source_revision" --sample "$checks" "$work/snapshot" >"$work/asked" &
    asker=$!
    started $asker
    wait $asker
    status=$?
    [ $status -eq 0 ] || kill -TERM $exporter 2>/dev/null
    wait $exporter
    code=$?
    children=''
    [ $status -ne 65 ] || [ $code -eq 0 ] || fail_of spice-export $code "$from could not be asked"
    [ $status -eq 0 ] || fail_of spice-check $status "$from could not be asked"
    asked=$(grep -c '^{"check"' "$work/asked")
    [ "$asked" -gt 0 ] || fail 1 "there was nothing to ask about" "run verify without --checks"
    errors=$((asked - $(grep -c '"item":{"permissionship":"PERMISSIONSHIP_' "$work/asked")))
    [ "$errors" -lt "$asked" ] || {
        undecided "$from answered each of $asked questions with an error"
        fail 1 "$from answered each of $asked questions with an error, which proves nothing. The first: $(sed -n 's/.*"error":{\(.*\)}}}$/\1/p' "$work/asked" | head -n 1 | harmless)" \
            "see what these errors say of $from; then run: $same"
    }
    tries=1
    while :; do
        run spice-check --context="$to" --at "$target_revision" "$work/asked" >"$work/checks"
        inconclusive=$(grep -c '^{"check".*"inconclusive":true}}$' "$work/checks")
        case $status in
        0 | 3) mv "$work/checks" "$state/checks.ndjson" ;;
        1) too_little_compared ;;
        *) fail_of spice-check "$status" "$to could not be asked" ;;
        esac
        [ $status -eq 3 ] || break
        disagree=$(($(grep -c '^{"check"' "$state/checks.ndjson") - inconclusive))
        if [ "$disagree" -gt 0 ]; then
            echo "$checks" | keep checks || exit
            undecided "$disagree of $asked answers"
        else
            undecided "the schemas differ, or have just been changed"
        fi
        [ $tries -lt 4 ] || {
            [ "$disagree" -gt 0 ] || fail 75 "the schemas differ, or have just been changed" "run: $same"
            verdict different "$disagree of $asked answers at $source_revision and $target_revision"
            fail 3 "$to answers otherwise than $from in $disagree of $asked cases, though relationships and schema are equal; all of them: $state/checks.ndjson" \
                "look at versions and flags of the two SpiceDBs; then run: $me verify --checks $checks (as many are asked without --checks, until they are alike)"
        }
        tries=$((tries + 1))
        say "asking both about these again, at a later pair"
        next_pair
        run spice-check --context="$from" --at "$source_revision" --record --quiet "$state/checks.ndjson" >"$work/asked" ||
            fail_of spice-check "$status" "$from could not be asked"
    done
    rm -f "$state/checks"
    answers=", $((asked - inconclusive)) answers alike"
    [ "$errors" -eq 0 ] || answers="$answers, $errors of these errors"
    if [ "$inconclusive" -eq 0 ]; then
        rm -f "$state/checks.ndjson"
    else
        answers="$answers, $inconclusive inconclusive"
        say "$inconclusive of $asked answers are inconclusive: $from or $to gave up at its maximum depth; all of them: $state/checks.ndjson"
    fi
}

# too_little_compared: after exit 1 of spice-check. Its stream is complete where it ended because of inconclusive answers
too_little_compared() {
    tail -n 1 "$work/checks" | grep -q '^{"trailer"' || fail_of spice-check 1 "$to could not be asked"
    mv "$work/checks" "$state/checks.ndjson"
    undecided "$inconclusive of $asked answers are inconclusive"
    fail 1 "$inconclusive of $asked answers are inconclusive: $from or $to gave up at its maximum depth; all of them: $state/checks.ndjson" \
        "compare --dispatch-max-depth of both SpiceDBs, and look for cycles in the data; then run: $same" \
        "relationships and schema are equal; to go by these alone, run: $me verify"
}

verify_step() {
    alone copy cutover reverse resync
    copied
    look_at_both
    if grep -q '^prune=.' "$state/following" 2>/dev/null && [ "$(kind source)" = PostgreSQL ]; then
        fail 2 "follow --prune deletes what verify has to look up in the spool of a PostgreSQL source" "run follow without --prune; then: $same"
    fi
    before=$(cat "$state/checks" 2>/dev/null)
    [ "$checks" -ge "${before:-0}" ] || {
        say "answers differed before, among those about $before relationships: asking about as many (--checks $before)"
        checks=$before
    }
    took=30 round=1 unlike_since='' answers=''
    set --
    while :; do
        next_pair
        schemas_agree || continue
        # What is proven is proven of the first pair: later ones only tell what it could not.
        [ $round -gt 1 ] || {
            first_pair="$source_revision and $target_revision" first_at=$(field at "$work/pair")
            first_at=$(date -u -d "${first_at:-?}" +%Y-%m-%dT%H:%M:%SZ) || fail 1 "the last pair in $state/applied.ndjson has no time" "run: $same"
        }
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
        [ "$(date +%s)" -lt "$until" ] || { # some may have expired in between
            [ $status -eq 0 ] || undecided "differences, or what has expired meanwhile"
            continue
        }
        # In memory a snapshot can lack a transaction that was overtaken (docs/reliability.md): what is different must
        # be so at later pairs, too.
        if [ $status -eq 3 ] && [ $round -lt 4 ] && [ "$(kind source)" = memory ]; then
            undecided "differences, which a snapshot of an in-memory datastore may invent"
            set_aside=$(grep -c '^{"update"' "$state/differences.ndjson")
            cp "$state/differences.ndjson" "$work/only"
            round=$((round + 1))
            set -- --keys-from "$work/only"
            continue
        fi
        [ $status -eq 0 ] || {
            count=$(grep -c '^{"update"' "$state/differences.ndjson")
            verdict different "$count at $source_revision and $target_revision"
            say "the first of them:"
            grep '^{"update"' "$state/differences.ndjson" | head -n 5 | harmless >&2
            fail 3 "$to differs from $from in $count relationships; all of them: $state/differences.ndjson" \
                "somebody else writes to $to, or something is wrong: find out which" \
                "to repair it: $me resync; then $me follow; then run: $same"
        }
        set_aside=$(wc -l <"$work/aside")
        [ "$set_aside" -gt 0 ] || break
        [ $round -lt 20 ] || fail 75 "$set_aside relationships are written all the time, and could not be told in $round rounds" "run: $same"
        round=$((round + 1))
        mv "$work/aside" "$work/only"
        set -- --keys-from "$work/only"
    done
    [ "$checks" -eq 0 ] || ask_both
    verdict equal "at $first_pair, in $round rounds$answers" "$first_at"
    rm -f "$state/differences.ndjson"
    say "proven equal: $to has the schema of $from and holds what it holds, as of these revisions$answers" "next: $me cutover"
}
