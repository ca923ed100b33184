# shellcheck shell=sh disable=SC2034,SC2154,SC2015 # a part of ../migrate: what is set here is used there, and the other way round
# Messages, processes and what the state folder knows.

say() { printf 'migrate: %s\n' "$@" >&2; }

# fail CODE WHAT NEXT...: says what happened and what to do next, and ends
fail() {
    code=$1 what=$2
    shift 2
    say "error: $what"
    for next; do say "next: $next"; done
    exit "$code"
}

# quoted WORD: as a shell reads it back, so that a printed command can be pasted and does this and nothing else
quoted() {
    case $1 in
    '' | *[!A-Za-z0-9_./:=,+%@-]*) printf "'%s'\n" "$(printf '%s\n' "$1" | sed "s/'/'\\\\''/g")" ;;
    *) printf '%s\n' "$1" ;;
    esac
}

# harmless: stdin, without what could rule a terminal: names come from whoever may write to the source
harmless() {
    LC_ALL=C tr '\001-\010\013-\037\177' '[?*]' | LC_ALL=C sed "$hostile"
}
# C1 controls, soft hyphen; bidi, separators and what has no width
hostile=$(printf 's/\302[\200-\237\255]/?/g;s/\330\234/?/g;s/\342\200[\213-\217\250-\256]/?/g;s/\342\201[\240-\257]/?/g;s/\357\273\277/?/g')

# only_ours FOLDER: refuses one that others can write: they would say what is copied, and from where
only_ours() {
    [ -O "$1" ] || [ -n "$(find "$1/." -prune -user 0 2>/dev/null)" ] ||
        fail 2 "$1 belongs to another user, who could change what this does" "give a folder of your own with --state"
    [ -z "$(find "$1/." -prune \( -perm -020 -o -perm -002 \) 2>/dev/null)" ] ||
        fail 2 "others can write to $1, and so change what this does" "run: chmod go-w $(quoted "$1"); then run: $same"
}

misuse() { fail 2 "$1" "see $(quoted "$0") --help"; }

# fail_of PROGRAM CODE WHAT: fails because a program did, which has said why
fail_of() {
    code=$2 ended="$1 ended with $2"
    [ "$code" -le 128 ] || code=75 ended="$1 was killed by signal $(($2 - 128))"
    case $2 in
    2) next="mend what $1 says above; then run: $same" ;;
    4) next="let the server keep its history for longer (--datastore-gc-window of SpiceDB); then run: $same" ;;
    65) next="what is damaged is named above; if it is $spool or $state/position, a resync begins a new one: $me resync; then: $me follow" ;;
    75) next="when the server answers, run: $same" ;;
    77) next="mend what $1 says above: token, TLS or permission; then run: $same" ;;
    *) next="see what $1 says above, and mend it; then run: $same" ;;
    esac
    [ "$2" -le 128 ] || next="run: $same"
    fail "$code" "$3: $ended" "$next"
}

# ---- processes -----------------------------------------------------------------------------------
# Children run in the background and are waited for: only then sh hears a signal meanwhile.

children=''

# identity PID: the pid with its start time, so that neither a reused pid nor a zombie is taken for it
identity() { echo "$1 $(sed -n 's/.*) [^ZX] //p' "/proc/$1/stat" 2>/dev/null | cut -d ' ' -f 19)"; }

started() { # PID
    children="$children $1"
    identity "$1" >>"$lock"
}

run() {
    "$@" &
    started $!
    wait $!
    status=$?
    children=''
    return $status
}

# at_work STEP: the first process of a step that lives
at_work() {
    [ -r "$state/$1.lock" ] || return 0
    while read -r pid start; do
        kill -0 "$pid" 2>/dev/null && [ "$(identity "$pid")" = "$pid $start" ] && echo "$pid" && return
    done <"$state/$1.lock"
}

# leads STEP: its first process, if that lives. Without it what lives of the step is what a kill -9 has left
leads() {
    read -r pid start 2>/dev/null <"$state/$1.lock" || return 0
    [ "$(identity "$pid")" != "$pid $start" ] || echo "$pid"
}

# how_to_stop STEP PID
how_to_stop() {
    if [ -n "$(leads "$1")" ]; then
        echo "wait for its end, or stop it with: kill $2; then run: $same"
    else
        echo "what began it was killed, and it does not end by itself. To stop all of it: $me abort; then run: $same"
    fi
}

# alone STEP...: refuses to go on while one of these is at work
alone() {
    for step; do
        pid=$(at_work "$step")
        [ -z "$pid" ] || fail 75 "$step of this migration is at work: process $pid" "$(how_to_stop "$step" "$pid")"
    done
}

# stop_step STEP WHY: ends it politely, which its own message then explains, and waits for its end. Only the
# first process is told: it tells the others, and to them a second signal means "at once"
stop_step() {
    told='' naps=0
    while pid=$(at_work "$1") && [ -n "$pid" ]; do
        [ -n "$told" ] || echo "$2" >"$state/$1.stop"
        if [ "$pid" != "$told" ]; then
            kill -TERM "$pid" 2>/dev/null
            told=$pid
        fi
        naps=$((naps + 1))
        [ $naps -lt 1500 ] || fail 75 "$1 does not end: process $pid got SIGTERM 30 s ago" \
            "look at $state/$1.log; when it has ended, run: $same"
        sleep 0.02
    done
    rm -f "$state/$1.stop"
}

# begin: takes the step's lock, and from now on keeps what is said in its log, too
begin() {
    identity $$ >"$lock.$$" || fail 2 "cannot write into $state" "give --state a folder that can be written"
    tries=0
    until ln "$lock.$$" "$lock" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -lt 4 ] || {
            rm -f "$lock.$$"
            fail 1 "cannot make $lock" "give --state a folder on a local disk with space"
        }
        pid=$(at_work "$command")
        if [ -n "$pid" ]; then
            rm -f "$lock.$$"
            fail 75 "process $pid of this migration is still at work ($lock)" "$(how_to_stop "$command" "$pid")"
        fi
        rm -f "$lock" # of one that was killed
    done
    rm -rf "$lock.$$" "$work"
    exec 3>&2
    trap finish EXIT
    trap 'stopped HUP' HUP
    trap 'stopped INT' INT
    trap 'stopped TERM' TERM
    mkdir "$work" && mkfifo "$work/said" ||
        fail 1 "cannot make a pipe in $state" "give --state a folder on a local disk with space"
    (trap '' HUP INT TERM PIPE && exec tee -a "$state/$command.log" <"$work/said" >&3 2>/dev/null) &
    tee=$!
    exec 2>"$work/said"
    echo "== $(date -u +%Y-%m-%dT%H:%M:%SZ) $same" >>"$state/$command.log"
}

finish() {
    exec 2>&3
    [ -z "${tee:-}" ] || wait "$tee"
    rm -rf "$work" "$lock"
}

# stopped SIGNAL: ends the children, keeps the state, and dies of the signal
stopped() {
    trap '' PIPE
    trap 'kill -TERM $children 2>/dev/null' HUP INT TERM
    if [ -n "$children" ]; then
        say "stopping: what is under way has less than a second to come to its end (a second signal cuts it)"
        # Ctrl-C was for them, too, and to them a second signal means "at once": they get time.
        # shellcheck disable=SC2086 # a list
        if [ "$1" = INT ]; then (sleep 2 && kill -TERM $children) 2>/dev/null & else kill -TERM $children & fi 2>/dev/null
        killer=$!
        for pid in $children; do
            wait "$pid" || wait "$pid" # once more, for a second signal interrupts it
        done 2>/dev/null
        kill "$killer" 2>/dev/null # their pids are free now
    fi
    trap - EXIT HUP INT TERM
    if [ -r "$state/$command.stop" ]; then
        say "$(cat "$state/$command.stop")"
        # These two are meant to be stopped; what others were to prove or to switch, they have not.
        case $command in
        follow | reverse)
            finish
            exit 0
            ;;
        esac
    elif [ "$command" = cutover ] && [ -r "$state/fence" ]; then
        say "stopped by SIG$1 behind the fence: writes to $from are STILL STOPPED, and nothing is switched" \
            "next: to go on, run: $same" "or, to give up: $me abort; then lift the fence"
    else
        say "stopped by SIG$1; nothing is lost" "next: to go on, run: $same"
    fi
    finish
    kill -s "$1" $$
}

# polite: the signal that ends a program. A step that takes over has the time to let a call under way come to its end:
# one that is dropped may be applied late, and whoever goes on has to wait for that, 30 s
polite() { if [ -r "$state/$command.stop" ]; then echo USR1; else echo TERM; fi; }

# keep_running NAME PROGRAM FLAGS...: runs a program again whenever it ends with 75, or was killed. At its own
# end it leaves the last exit code in $work/NAME.code, and its name in the pipe $work/ended
keep_running() {
    name=$1 stopping=''
    shift
    children=''
    trap '' HUP INT
    trap 'stopping=yes; kill -s "$(polite)" $child 2>/dev/null' TERM
    while :; do
        began=$(date +%s) child=''
        "$@" &
        child=$!
        identity "$child" >>"$lock"
        [ -z "$stopping" ] || kill -s "$(polite)" "$child" 2>/dev/null
        wait "$child"
        status=$?
        while kill -0 "$child" 2>/dev/null; do # a signal has ended the wait, not the program
            wait "$child"
            status=$?
        done
        wait "$child" # whose status this is, where the shell still knows it
        code=$?
        [ $code -eq 127 ] || status=$code
        [ -z "$stopping" ] && { [ $status -eq 75 ] || [ $status -eq 137 ]; } || break
        pause=1
        [ $(($(date +%s) - began)) -gt 60 ] || pause=5
        say "$1 ended with $status: beginning again in $pause s"
        sleep $pause &
        child=$!
        wait "$child"
        [ -z "$stopping" ] || break
    done
    echo "$status" >"$work/$name.code"
    echo "$name" >"$work/ended"
}

# ---- what is known -------------------------------------------------------------------------------

# field NAME FILE: a field of the JSON object in FILE, for values without escapes
field() { sed -n 's/.*"'"$1"'":"\{0,1\}\([^",}]*\).*/\1/p' "$2"; }

# milliseconds DURATION: of 500ms, 30s, 5m, 2h or 1d
milliseconds() {
    case $1 in
    *ms) echo "${1%ms}" ;;
    *s) echo "${1%s}" 1000 ;;
    *m) echo "${1%m}" 60000 ;;
    *h) echo "${1%h}" 3600000 ;;
    *d) echo "${1%d}" 86400000 ;;
    *) echo x ;;
    esac | awk '$1 !~ /^[0-9]+([.][0-9]+)?$/ { exit 1 } { printf "%d\n", $1 * ($2 ? $2 : 1) }'
}

now() { date +%s%3N; } # milliseconds

seconds_of() { awk -v ms="$1" 'BEGIN { printf "%.3f", ms / 1000 }'; }

known() { sed -n "s/^$1=//p" "$state/ends"; }

# keep FILE: stdin into a file of the state folder, as a whole or not at all
keep() {
    cat >"$state/$1.new" && mv "$state/$1.new" "$state/$1" || fail 1 "cannot write $state/$1" "make space; then run: $same"
}

# mark STATE: how far the copy is
mark() { echo "$1 since $(date -u +%Y-%m-%dT%H:%M:%SZ)" | keep copy || exit; }

# look END CONTEXT: reaches a server with its token, and finds what is behind it
