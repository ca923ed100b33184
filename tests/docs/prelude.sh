# shellcheck shell=bash disable=SC2154 # docs_page is set before this
# What every page of the documentation is run with: tests/docs/script.rs puts its blocks behind this.
set -eu -o pipefail
docs_jobs='' docs_line=0

docs_expect() { # docs_expect CODE ACTUAL
    [ "$1" = "$2" ] || { echo "$docs_page:$docs_line: exit $2, expected $1" >&2; exit 1; }
}

docs_end() {
    local code=$?
    set +e
    [ "$code" = 0 ] || {
        echo "$docs_page:$docs_line: exit $code"
        tail -n 20 "$DOCS"/out.* 2>/dev/null
    } >&2
    stop
    # Servers that the page has started itself.
    case ${SPICEDB_STATE:-} in "$HOME"/*) "$REPOSITORY/tests/servers/spicedb" remove --all ;; esac
    exit "$code"
}
trap docs_end EXIT

# stop: ends what runs in the background, as Ctrl-C would
stop() {
    local job
    for job in $docs_jobs; do
        kill -TERM -- "-$job" 2>/dev/null || :
        wait "$job" 2>/dev/null || :
    done
    docs_jobs=''
}

# wait_for COMMAND...: until it ends with 0
wait_for() {
    local end=$((SECONDS + 60))
    until "$@" >/dev/null 2>&1; do
        [ "$SECONDS" -lt "$end" ] || { echo "waited in vain: $*" >&2; return 1; }
        sleep 0.2
    done
}

# fails COMMAND...: a plain ! would not end the script
fails() {
    if "$@"; then
        echo "this should fail: $*" >&2
        return 1
    fi
}

# remove CONTEXT CONDITION: deletes the relationships of which this expression of jq is true
remove() {
    spice-export --context "$1" --settle 0s |
        jq -c "select(.relationship) | select(.relationship | $2) |
            {update: {operation: \"OPERATION_DELETE\", relationship: .relationship}}" >"$DOCS/deletes.ndjson"
    [ ! -s "$DOCS/deletes.ndjson" ] || spice-apply --context "$1" --no-trailer "$DOCS/deletes.ndjson"
} >/dev/null

# empty CONTEXT: deletes its relationships, and keeps its schema
empty() { remove "$1" true; }

# put CONTEXT RELATIONSHIP...: writes relationships in SpiceDB's notation
put() {
    local context=$1
    shift
    printf '%s\n' "$@" | spice-convert | spice-import --context "$context" --schema skip --on-conflict touch
} >/dev/null
