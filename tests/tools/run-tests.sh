#!/bin/sh
# Runs cargo test with these arguments. What failed beside other tests is run once more, alone: many tests measure
# time, and four of them with their servers share two cores. Such a test is named at the end, and counts as
# passed; one that fails alone, too, or more than a few at once, fails the run.
set -u
most=4
log=$(mktemp) && status_file=$(mktemp) || exit
trap 'rm -f "$log" "$status_file"' EXIT

{
    cargo test --no-fail-fast "$@"
    echo $? >"$status_file"
} 2>&1 | tee "$log"
status=$(cat "$status_file")
[ "$status" -ne 0 ] || exit 0

failed=$(sed -n 's/^test \([^ ]*\) \.\.\. FAILED$/\1/p' "$log")
# shellcheck disable=SC2086 # a list of names without spaces
set -- $failed
[ $# -gt 0 ] && [ $# -le $most ] || exit "$status"
for name; do
    echo "run-tests: once more, alone: $name"
    RUST_TEST_THREADS=1 cargo test --workspace -- --no-coalesce "$name" || exit
done
printf 'run-tests: passed only alone: %s\n' "$@"
