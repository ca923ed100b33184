# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# status: how far the target is behind, told by the spool and the position alone. No server is asked.

# segments: the files of the spool, oldest first
segments() {
    for file in "$spool" "$spool".[0-9]*; do [ ! -f "$file" ] || echo "$file"; done
}

# moment: of the last checkpoint on stdin, in milliseconds
moment() {
    at=$(grep -a '^{"checkpoint"' | tail -n 1 | sed -n 's/.*"at":"\([^"]*\)".*/\1/p')
    [ -z "$at" ] || date -d "$at" +%s%3N
}

# begun FILE: when a segment was begun, likewise
begun() { date -d "$(head -n 1 "$1" | sed -n 's/.*"createdAt":"\([^"]*\)".*/\1/p')" +%s%3N 2>/dev/null; }

# seen_through FILE BYTES: when all was captured that these bytes of a segment hold
seen_through() {
    skip=$(($2 > 4000000 ? $2 - 4000000 : 0))
    through=$(tail -c +$((skip + 1)) "$1" | head -c $(($2 - skip)) | moment)
    [ -n "$through" ] || through=$(head -c "$2" "$1" | moment)
    echo "${through:-$(begun "$1")}"
}

# followed NAME: with what follow was started
followed() { sed -n "s/^$1=//p" "$state/following" 2>/dev/null; }

# heartbeat_of_follow: in milliseconds
heartbeat_of_follow() { milliseconds "$(followed heartbeat)" || echo 30000; }

# settling: how long a revision of the source must have been known before it is used, in milliseconds
settling() {
    after=$(followed settle)
    after=${after:-$settle}
    case $after-$(known source) in
    -PostgreSQL* | -CockroachDB* | -Spanner*) after=0s ;;
    -*) after=35s ;;
    esac
    milliseconds "$after" || echo 35000
}

# last_pair: the last record of spice-apply that pairs revisions
last_pair() { tail -c 1000000 "$state/applied.ndjson" 2>/dev/null | grep -a '^{.*"syncPoint":true.*}$' | tail -n 1; }

# measure: sets running, heard and behind (milliseconds), capture_lag (seconds), backlog (transactions), backlog_bytes and headroom
measure() {
    running=$(leads follow) heard='' behind='' capture_lag=''
    newest=$(segments | tail -n 1)
    [ -n "$newest" ] || return
    segment=$(segments | head -n 1) offset=0 own=0
    if [ -r "$state/position" ]; then
        place=$(sed -n 's/.*"spool":{"segment":\([0-9]*\),"offset":\([0-9]*\)}.*/\1 \2/p' "$state/position")
        if [ -n "$place" ]; then
            offset=${place#* } segment=$spool
            [ "${place% *}" = 0 ] || segment=$(printf '%s.%06d' "$spool" "${place% *}")
            [ -r "$segment" ] || return
            own=$(tail -c +$((offset + 1)) "$segment" | head -n 1 | wc -c)
        fi
    fi
    size=$(wc -c <"$newest")
    capture_lag=$(tail -c 4000000 "$newest" | grep -a '^{"checkpoint"' | sed -n 's/.*"lag":\([0-9.]*\).*/\1/p' | tail -n 1)
    last=$(seen_through "$newest" "$size")
    stood=$(seen_through "$segment" $((offset + own)))
    heard=$(($(now) - last)) behind=$((last - stood)) backlog=0 backlog_bytes=0 later=''
    for file in "$spool" "$spool".[0-9]*; do
        [ -f "$file" ] || continue
        [ "$file" != "$segment" ] || later=yes
        [ -n "$later" ] || continue
        skip=0
        [ "$file" != "$segment" ] || skip=$((offset + own))
        backlog_bytes=$((backlog_bytes + $(wc -c <"$file") - skip))
        backlog=$((backlog + $(tail -c +$((skip + 1)) "$file" | grep -a -c '^{"transaction"')))
    done
    [ "$backlog" -gt 0 ] || behind=0
    window=$(milliseconds "$gc_window") || window=''
    headroom=''
    [ -z "$window" ] || headroom=$((window - heard - $(milliseconds "${settle:-0s}" || echo 0)))
}

# proved_at: when verify proved both ends equal, if that is its verdict
proved_at() { sed -n 's/^equal since \([^ ]*\): .*/\1/p' "$state/verdict" 2>/dev/null; }

# fades: what to say of an equal verdict that is older than some minutes, where transactions can overtake each other
fades() {
    case $(known source) in
    MySQL | memory*) ;;
    *) return 0 ;;
    esac
    proven=$(proved_at)
    [ -n "$proven" ] && [ $(($(now) - $(date -d "$proven" +%s%3N))) -gt 300000 ] || return 0
    echo "; on such a source a verdict of the last minutes is worth more: $me verify"
}

# judge_verdict GRACE: sets unsafe where verify has not proved both ends equal, or too long ago: by so many milliseconds
# more than --verdict-age
judge_verdict() {
    [ -z "$unverified" ] || return 0
    most=$(milliseconds "$verdict_age") || misuse "--verdict-age is a duration such as 1h, not $verdict_age"
    proven=$(proved_at)
    if [ -z "$proven" ]; then
        unsafe="verify has not proved $to equal to $from"
    elif [ $(($(now) - $(date -d "$proven" +%s%3N))) -gt $((most + $1)) ]; then
        unsafe="that $to equals $from was proved at $proven, more than $verdict_age ago (--verdict-age)"
    fi
    [ -z "$unsafe" ] || remedy="run: $me verify. (Or do without the proof: --unverified)"
}

# judge_rejects: sets unsafe where the target has refused updates since it was proved equal
judge_rejects() {
    rejects_file=$(followed on_reject)
    [ -n "$rejects_file" ] && [ -s "$rejects_file" ] || return 0
    proven=$(proved_at)
    [ -z "$proven" ] || [ "$(date -r "$rejects_file" +%s%3N)" -ge "$(date -d "$proven" +%s%3N)" ] || return 0
    unsafe="$to has refused updates since it was last proved equal: they are in $rejects_file"
    remedy="mend and apply them, then run: $me verify. (Or do without them: move that file away)"
}

# judge_safety: sets unsafe to what forbids the switch, if anything does, and remedy to what is to be done
judge_safety() {
    unsafe='' remedy=''
    bound=$(milliseconds "$max_lag") || misuse "--max-lag is a duration such as 10s, not $max_lag"
    beat=$(heartbeat_of_follow)
    # What a heartbeat takes includes the settle time.
    capture_bound=$(($(settling) + bound)) captured_after=$(awk -v s="${capture_lag:-0}" 'BEGIN { printf "%d", s * 1000 }')
    if [ -r "$state/switched" ]; then
        unsafe="the switch was ordered already: $(cat "$state/switched")"
    elif [ -z "$newest" ]; then
        unsafe="nothing was captured yet"
    elif [ -z "$running" ]; then
        unsafe="follow is not running"
    elif [ ! -r "$state/position" ]; then
        unsafe="nothing was applied yet"
    elif [ -z "$heard" ]; then
        unsafe="the spool lacks the segment that the position names"
    elif grep -q '^different' "$state/verdict" 2>/dev/null; then
        unsafe="verify found $to different: $(cat "$state/verdict")"
        remedy="mend it (docs/cutover.md, \"Verify\"), then run: $me verify"
    elif [ "$heard" -gt $((2 * beat + bound)) ]; then
        unsafe="nothing was heard of $from for $((heard / 1000)) s, though it is asked every $((beat / 1000)) s"
    elif [ "$behind" -gt "$bound" ]; then
        unsafe="$to is $(seconds_of "$behind") s behind what was captured (--max-lag $max_lag)"
    elif [ "$captured_after" -gt "$capture_bound" ]; then
        unsafe="$from told of the last heartbeat only $capture_lag s after it, more than --max-lag $max_lag and the settle time allow"
    else
        judge_rejects
        [ -n "$unsafe" ] || judge_verdict 0
    fi
}

# begin_again: what comes next while follow does not run
begin_again() {
    unfinished=$(unfinished)
    if [ -n "$unfinished" ]; then
        echo "$me $unfinished"
    elif [ -r "$state/fence" ]; then
        echo "$me cutover goes on behind the fence; or, to give up: $me abort, and lift the fence"
    elif [ -e "$spool.lost" ]; then
        echo "changes of $from are lost: $me resync"
    else
        echo "$me follow"
    fi
}

# reverse_runs: whether it does, and what it has brought back
reverse_runs() {
    pid=$(leads reverse)
    if [ -n "$pid" ]; then printf 'runs, process %s' "$pid"; else printf 'does not run'; fi
    last=$(tail -c 1000000 "$state/reverse-applied.ndjson" 2>/dev/null | grep -a '"transactions":[1-9]' | sed -n 's/.*"at":"\([^"]*\)".*/\1/p' | tail -n 1)
    if [ -n "$last" ]; then echo "; the last write came back at $last"; else echo "; no write has come back"; fi
}

status_step() {
    running='' heard='' behind='' capture_lag='' backlog='' backlog_bytes='' headroom='' newest=''
    measure
    judge_safety
    runs="does not run" room=unknown
    [ -z "$running" ] || runs="runs, process $running"
    [ -z "$headroom" ] || room="$((headroom / 1000)) s"
    number() { if [ -n "$1" ]; then seconds_of "$1"; else echo null; fi; }
    if [ -n "$json" ]; then
        quoted=null
        [ -z "$unsafe" ] || quoted="\"$(printf %s "$unsafe" | sed 's/[\\"]/\\&/g')\""
        printf '{"status":{"running":%s,"lagSeconds":%s,"heardSecondsAgo":%s,"captureLagSeconds":%s,"backlog":%s,"backlogBytes":%s,"headroomSeconds":%s,"safe":%s,"why":%s}}\n' \
            "$([ -n "$running" ] && echo true || echo false)" "$(number "$behind")" "$(number "$heard")" "${capture_lag:-null}" "${backlog:-null}" \
            "${backlog_bytes:-null}" "$(number "$headroom")" "$([ -z "$unsafe" ] && echo true || echo false)" "$quoted"
    else
        cat <<END
follow     $runs
copy       $(cat "$state/copy" 2>/dev/null || echo 'not begun')
lag        ${behind:+$(seconds_of "$behind") s behind what was captured; }${heard:+$from was last heard $(seconds_of "$heard") s ago}${capture_lag:+, and told of the last heartbeat $capture_lag s after it}
backlog    ${backlog:-unknown} transactions, ${backlog_bytes:-unknown} bytes
headroom   $room${gc_window:+ of $gc_window}
verify     $(cat "$state/verdict" 2>/dev/null || echo 'not done')$(fades)
END
        [ ! -r "$state/fence" ] || echo "fence      confirmed $((($(now) - $(cat "$state/fence")) / 1000)) s ago: writes to $from are stopped"
        [ ! -r "$state/switched" ] || echo "reverse    $(reverse_runs)"
    fi
    [ -n "$unsafe" ] || {
        say "safe to cut over" "next: $me cutover${unverified:+ --unverified}"
        return
    }
    say "not safe to cut over: $unsafe"
    if [ -r "$state/switched" ]; then
        say "$(way_back "$(known target)")"
    elif [ -z "$running" ]; then
        say "next: $(begin_again)"
    elif [ -n "$remedy" ]; then
        say "next: $remedy"
    else
        say "next: look at what follow says; then $me status"
    fi
    exit 1
}
