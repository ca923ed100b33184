# Processes, identified by pid and start time; locks; loopback ports. A part of tests/servers/spicedb.
# shellcheck shell=bash
# shellcheck disable=SC2154 # what is not set here is set by tests/servers/spicedb, which reads this file

# identity PID: the pid with its start time, so that a reused pid is never mistaken for the old process. A process
# that was killed is a zombie as soon as its first thread has ended; the others still hold its files and ports.
identity() {
    local stat
    { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
    read -ra stat <<<"${stat##*) }"
    [ "${stat[0]}" != Z ] || [ "${stat[17]}" -gt 1 ] || return 1
    echo "$1 ${stat[19]}"
}

# alive FILE: is the process whose identity FILE holds still there?
alive() {
    local pid start
    { read -r pid start <"$1"; } 2>/dev/null || return 1
    [ "$(identity "$pid")" = "$pid $start" ]
}

# end FILE SIGNAL SECONDS: signals that process, waits, and kills it when it takes longer
end() {
    local pid start waited=0
    alive "$1" || return 0
    read -r pid start <"$1"
    kill -s "$2" "$pid" 2>/dev/null || true
    while alive "$1"; do
        [ $((waited += 1)) -ne $(($3 * 50)) ] || kill -s KILL "$pid" 2>/dev/null || true
        sleep 0.02
    done
}

# locked FILE COMMAND...: runs it while holding the lock
locked() {
    local fd file=$1 status
    shift
    exec {fd}>"$file" || die "$file cannot be written"
    flock "$fd"
    "$@"
    status=$?
    exec {fd}>&-
    return "$status"
}

# only_stdio: closes every other file descriptor, locks and the caller's pipes among them
only_stdio() {
    local fd
    for fd in /proc/self/fd/*; do
        fd=${fd##*/}
        [ "$fd" -le 2 ] || eval "exec $fd>&-"
    done
}

# daemon LOG COMMAND...: starts it in its own process group, detached from this one; its pid is in $!
daemon() {
    local log=$1
    shift
    (
        only_stdio
        exec setsid "$@"
    ) </dev/null >>"$log" 2>&1 &
}

# ---- loopback ports ------------------------------------------------------------------------------

# listens PORT: does any process listen on it?
listens() {
    local all
    all=$(awk '$4 == "0A" { sub(/.*:/, ":", $2); print $2 " " }' /proc/net/tcp /proc/net/tcp6 2>/dev/null || true)
    [[ $all == *"$(printf ':%04X ' "$1")"* ]]
}

# reserve_port HOLDER-PID [PORT]: sets $port. Ports are handed out in turn, so that one that was given back is not soon reused.
reserve_port() {
    folder 700 "$run"
    [ -O "$run" ] || die "$run belongs to another user"
    locked "$run/ports.lock" pick_port "$@"
}

pick_port() {
    local holder=$1 wanted=${2:-} tries=0
    port=$wanted
    [ -n "$port" ] || { read -r port <"$run/last-port"; } 2>/dev/null || port=$last_port
    while :; do
        [ -n "$wanted" ] || port=$((port >= last_port || port < first_port ? first_port : port + 1))
        if ! alive "$run/port-$port" && ! listens "$port"; then
            identity "$holder" >"$run/port-$port" || true
            [ -n "$wanted" ] || echo "$port" >"$run/last-port"
            return
        fi
        [ -z "$wanted" ] || die "port $port is in use"
        [ $((tries += 1)) -le $((last_port - first_port)) ] || die "no free port from $first_port to $last_port"
    done
}

# reserve_port_again FOLDER: the port that FOLDER had, if it is still free, so that clients reach it again
reserve_port_again() {
    local old=''
    { read -r old <"$1/port"; } 2>/dev/null || true
    if [ -n "$old" ] && ! listens "$old" && ! alive "$run/port-$old"; then
        reserve_port $$ "$old"
    else
        reserve_port $$
    fi
}

give_port_to() { cp "$1" "$run/port-$port"; } # FILE with the identity of the new holder

# release_port FOLDER: gives the port of the server or database in FOLDER back, if it still is theirs
release_port() {
    local reservation
    [ -r "$1/port" ] || return 0
    reservation=$run/port-$(cat "$1/port")
    ! cmp -s "$1/pid" "$reservation" || rm -f "$reservation"
}

freeport() {
    local count
    for ((count = ${1:-1}; count > 0; count--)); do
        reserve_port "$PPID"
        echo "$port"
    done
}
