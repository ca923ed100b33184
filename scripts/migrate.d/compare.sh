# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# Both ends, counted, digested and compared.

read_end() {
    end=$1 context=$2
    shift 2
    children=''
    trap 'kill -TERM $children 2>/dev/null; exit 143' HUP INT TERM
    mkfifo "$work/$end.stream" "$work/$end.rest" 2>/dev/null
    spice-export --context="$context" --no-schema --expiry-precision "$precision" "$@" >"$work/$end.stream" &
    exporter=$!
    if [ -z "$as_of" ]; then
        tail -n 1 <"$work/$end.stream" >"$work/$end.trailer" &
    else
        LC_ALL=C awk -v as_of="$as_of" -v precision="$precision" '
            match($0, /"optionalExpiresAt":"[^"]*"[}][}]$/) {
                if (substr($0, RSTART + 21, 19) <= as_of) next
                if (precision == "s") $0 = substr($0, 1, RSTART + 39) "Z\"}}"
            }
            { print }' <"$work/$end.stream" >"$work/$end.rest" &
        children=$!
        spice-import --dry-run --partial <"$work/$end.rest" 2>"$work/$end.trailer" &
    fi
    counter=$!
    children="$children $exporter $counter"
    wait $counter
    counted=$?
    wait $exporter || exit
    if [ -z "$as_of" ]; then
        echo "$(field relationships "$work/$end.trailer") $(field digest "$work/$end.trailer")"
    else
        sed -n 's/.*: \([0-9]*\) relationships, digest \([0-9a-f]*\) .*/\1 \2/p' "$work/$end.trailer"
    fi >"$work/$end.read"
    [ $counted -eq 0 ] && grep -q '^[0-9][0-9]* [0-9a-f]\{32\}$' "$work/$end.read" || {
        cat "$work/$end.trailer" >&2
        exit 65
    }
}

# read_both SOURCE-FLAG VALUE TARGET-FLAG VALUE: both ends at the same time, into $source_read and $target_read
read_both() {
    read_end source "$from" ${2:+"$1" "$2"} &
    source_reader=$!
    started $source_reader
    read_end target "$to" "$3" "$4" &
    target_reader=$!
    started $target_reader
    wait $source_reader
    status=$?
    wait $target_reader || status=$?
    children=''
    [ $status -eq 0 ] || return $status
    source_read=$(cat "$work/source.read")
    target_read=$(cat "$work/target.read")
}

# read_again FLAGS...: read_both without what expires soon. Expiry is silent: ends that were read at different
# times differ by what expired in between, and nothing is missing
read_again() {
    hours=$((seconds / 1800 + 1)) # twice the time that the first look took is enough
    [ $hours -le 24 ] || hours=24
    as_of=$(TZ="UTC-$hours" date +%Y-%m-%dT%H:%M:%S)
    say "they differ; reading both without what expires until ${as_of}Z, for that may be all"
    read_both "$@" || return
    # Digits sort as they should.
    printf '%s\n' "$(date -u +%Y-%m-%dT%H:%M:%S)" "$as_of" | LC_ALL=C sort -c 2>/dev/null ||
        fail 75 "reading both ends took more than $hours h, so they cannot be compared" "run: $same"
}

# show NAME NAME: count and digest of source and target; true where they are equal, $but for what was left out
show() {
    printf '%-28s %12s relationships, digest %s (%s)\n' \
        "$1" "${source_read% *}" "${source_read#* }" "$precision" \
        "$2" "${target_read% *}" "${target_read#* }" "$precision" | tee -a "$state/$command.log"
    but=''
    [ -z "$as_of" ] || but=", without what expires until ${as_of}Z"
    [ "$source_read" = "$target_read" ]
}

# prove: does the target hold what was imported?
prove() {
    tail -n 1 "$state/imported.ndjson" >"$work/imported"
    precision=$(field expiryPrecision "$work/imported")
    source_revision=$(field sourceRevision "$work/imported")
    target_revision=$(field targetRevision "$work/imported")
    seconds=$(field seconds "$work/imported")
    seconds=${seconds%%.*}
    as_of=''
    say "reading $to at $target_revision, to compare it with what was imported"
    run read_end target "$to" --at "$target_revision" || not_compared
    source_read="$(field relationships "$work/imported") $(field digest "$work/imported")"
    target_read=$(cat "$work/target.read")
    [ "$source_read" = "$target_read" ] ||
        read_again --at "$source_revision" --at "$target_revision" || not_compared
    show "snapshot of $from" "$to" || {
        mark unequal
        fail 3 "$to does not hold exactly what was copied from $from. Do not switch" \
            "$unequal_copy" \
            "if that does not help, $to holds what $from does not (deleted there meanwhile, or written by others): empty it, plan with another --state, copy"
    }
    mark proven
    say "proven: $to holds $from as of revision $source_revision$but" \
        "$what_of_later" \
        "next: $after_copy"
}

not_compared() {
    [ "$status" -ne 4 ] ||
        fail 4 "all was copied, but the revision to compare is no longer in the history" \
            "$compare_later"
    fail_of spice-export "$status" "the ends could not be compared"
}
