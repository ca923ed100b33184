# Google's Spanner emulator, one per state folder, and the databases in it. A part of tests/servers/spicedb.
# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154 # what is not set or used here is set or used by tests/servers/spicedb, which reads this file

spanner_instance=projects/spicedb/instances/tests

# find_spanner: sets $spanner_bin, the folder of the emulator's two programs
find_spanner() {
    local gateway
    while read -r gateway; do
        [ ! -x "$gateway" ] || [ ! -x "${gateway%/*}/emulator_main" ] || { spanner_bin=${gateway%/*} && return 0; }
    done < <(command -v gateway_main || true
        echo /usr/lib/google-cloud-sdk/bin/cloud_spanner_emulator/gateway_main)
    return 1
}

need_spanner() {
    find_spanner ||
        die "the Spanner emulator (gateway_main and emulator_main) is not on PATH: install it (google-cloud-cli-spanner-emulator of Google's apt repository)"
    folder 700 "$state/.spanner"
    folder 700 "$state/.spanner/http"
    locked "$state/.spanner/lock" start_spanner
}

# start_spanner: the gateway serves REST, its child gRPC. They keep everything in memory
start_spanner() {
    local here=$state/.spanner http_port waited=0
    if alive "$here/pid" && alive "$here/http/pid"; then return; fi
    end_spanner
    reserve_port_again "$here/http"
    http_port=$port
    reserve_port_again "$here"
    daemon "$here/log" "$spanner_bin/gateway_main" --hostname 127.0.0.1 --grpc_port "$port" --http_port "$http_port" \
        --grpc_binary "$spanner_bin/emulator_main" --override_max_databases_per_instance 1000
    identity $! >"$here/http/pid" || die "the Spanner emulator ended at once"
    echo "$http_port" >"$here/http/port"
    echo "$port" >"$here/port"
    until spanner_child && listens "$port" && listens "$http_port"; do
        if ! alive "$here/http/pid" || [ $((waited += 1)) -gt 600 ]; then
            tail -n 20 "$here/log" >&2 && end_spanner && die "the Spanner emulator did not start"
        fi
        sleep 0.05
    done
    give_port_to "$here/pid"
    cp "$here/http/pid" "$run/port-$http_port"
    spanner_rest POST "${spanner_instance%/*}" "{\"instanceId\":\"${spanner_instance##*/}\",\"instance\":{
        \"config\":\"${spanner_instance%%/instances*}/instanceConfigs/emulator-config\",\"displayName\":\"tests\",\"nodeCount\":1}}"
}

# spanner_child: notes the process that the gateway has started; it outlives a gateway that is ended
spanner_child() {
    local gateway child
    read -r gateway _ <"$state/.spanner/http/pid"
    child=$(cat "/proc/$gateway/task"/*/children 2>/dev/null) || return 1
    [ -n "$child" ] && identity "${child%% *}" >"$state/.spanner/pid"
}

# end_spanner: both processes, and their ports
end_spanner() {
    end "$state/.spanner/http/pid" TERM 5
    end "$state/.spanner/pid" TERM 5
    release_port "$state/.spanner/http"
    release_port "$state/.spanner"
    rm -f "$state/.spanner/pid" "$state/.spanner/http/pid"
}

stop_spanner() {
    [ ! -d "$state/.spanner/http" ] || locked "$state/.spanner/lock" end_spanner
}

# spanner_rest METHOD PATH [JSON]: fails unless the answer is 200
spanner_rest() {
    local answer connection length
    exec {connection}<>"/dev/tcp/127.0.0.1/$(cat "$state/.spanner/http/port")"
    length=$(printf '%s' "${3:-}" | wc -c)
    printf '%s /v1/%s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %s\r\nConnection: close\r\n\r\n%s' \
        "$1" "$2" "$length" "${3:-}" >&"$connection"
    answer=$(cat <&"$connection")
    exec {connection}>&-
    [[ $answer == "HTTP/1.1 200 "* ]] || { say "the Spanner emulator: $answer" && return 1; }
}

create_spanner_database() {
    spanner_rest POST "$spanner_instance/databases" "{\"createStatement\":\"CREATE DATABASE \`$1\`\"}"
}

has_spanner_database() { spanner_rest GET "$spanner_instance/databases/$1" 2>/dev/null; }

drop_spanner_database() { spanner_rest DELETE "$spanner_instance/databases/$1"; }

# spanner_uri: adds to $environment where $database is
spanner_uri() {
    local address
    address=127.0.0.1:$(cat "$state/.spanner/port")
    uri=$spanner_instance/databases/$database
    environment+=("SPICEDB_DATASTORE_SPANNER_EMULATOR_HOST=$address" "SPANNER_EMULATOR_HOST=$address")
}
