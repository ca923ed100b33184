# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# The two ends: who is there, and does it fit?

look() {
    run spice-revision --context="$2" --head --settle 0s --json >"$work/$1" ||
        fail_of spice-revision "$status" "cannot look at the $1, $2"
}

# look_at_both: refuses ends that are the same, or others than those that plan saw; sets $precision
look_at_both() {
    look source "$from"
    look target "$to"
    from_id=$(field datastoreId "$work/source")
    to_id=$(field datastoreId "$work/target")
    if [ "$from_id" = "$to_id" ] && [ "$from_id" != null ]; then
        fail 2 "source and target are the same datastore: $from_id is behind $from and behind $to" \
            "correct the endpoints in the contexts file. (A database restored from a backup of the source has its id, too: use an empty one)"
    fi
    # SpiceDB v1.45 and older does not name its datastore: then the endpoints have to tell them apart.
    unnamed=''
    if [ "$from_id $to_id" = 'null null' ]; then
        unnamed=yes
        [ "$from" != "$to" ] || fail 2 "source and target are both $from" "name another context with --to"
    fi
    followable
    precision=us
    for end in source target; do
        [ "$(field expiryPrecision "$work/$end")" = us ] || precision=s # MySQL keeps whole seconds
    done
    [ -r "$state/ends" ] && [ "$from_id $to_id" != "$(known from_datastore) $(known to_datastore)" ] || return 0
    [ "$command" != plan ] || [ -r "$state/copy" ] || return 0
    fail 2 "not the planned ends: $from is datastore $from_id (planned: $(known from_datastore)), $to is $to_id (planned: $(known to_datastore))" \
        "correct the contexts file; or, if a server was replaced on purpose, plan again, with another --state once a copy has begun. (A restart empties an in-memory datastore)"
}

# kind END: the datastore, as spice-revision tells it
kind() {
    case $(field datastore "$work/$1") in
    memory) echo memory ;;
    mysql) echo MySQL ;;
    postgres) echo PostgreSQL ;;
    cockroachdb) echo CockroachDB ;;
    spanner) echo Spanner ;;
    memory-or-spanner) echo "memory or Spanner" ;;
    *) echo "a datastore of an unknown kind" ;;
    esac
}

# followable: refuses a source that the live procedure cannot follow, before anything is stopped; sets $fenced_plan, the
# way out
followable() {
    [ "$procedure" = live ] || return 0
    fenced_plan="$me --from $(quoted "$from") --to $(quoted "$to") plan --fenced"
    fenced="plan the other procedure, with writes stopped from copy to switch: $fenced_plan"
    [ ! -r "$state/copy" ] || fenced="empty $to, and plan with --fenced and another --state: writes are stopped from copy to switch then"
    case $(kind source) in
    Spanner)
        fail 1 "$from is on Spanner, which cannot be followed: its Watch leaves the expiry of relationships out. Nothing was stopped" "$fenced"
        ;;
    "memory or Spanner")
        fail 2 "$from is in memory or on Spanner, and its answers do not tell which. Spanner cannot be followed. Nothing was stopped" \
            "write datastore = \"memory\" or datastore = \"spanner\" into [$from] of the contexts file; then run: $same"
        ;;
    esac
}

# header_of FLAGS...: the first line of an export of the source with these flags, into $work/header
header_of() {
    mkfifo "$work/stream"
    spice-export --context="$from" "$@" --quiet >"$work/stream" &
    exporter=$!
    started $exporter
    head -n 1 <"$work/stream" >"$work/header" &
    started $!
    wait $!
    kill -TERM $exporter 2>/dev/null # the header is enough
    wait $exporter 2>/dev/null
    status=$?
    children=''
    rm -f "$work/stream"
    [ -s "$work/header" ] || fail_of spice-export $status "$from cannot be exported"
}

# fit: can the source be exported, and does the target take it? Writes nothing
fit() {
    header_of --settle 0s
    run spice-import --context="$to" --dry-run --no-trailer --quiet ${unnamed:+--same-datastore} ${policy:+--on-conflict "$policy"} "$work/header" ||
        case $status in
        1) fail 1 "$to does not take the schema of $from" "empty $to, its schema too, or make the schema equal; then run: $same" ;;
        2) fail 2 "$to holds relationships, and they are not from this migration" \
            "empty it, or plan for another target; only if they are meant to be there: --on-conflict fail|skip|touch" ;;
        *) fail_of spice-import $status "$to cannot be loaded" ;;
        esac
}
