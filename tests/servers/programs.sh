# The programs that tests/servers/spicedb needs: found on PATH, built from go.mod here, or installed. A part of tests/servers/spicedb.
# shellcheck shell=bash
# shellcheck disable=SC2154 # what is not set here is set by tests/servers/spicedb, which reads this file

# tool NAME PACKAGE: prints the program's path; builds it from tests/servers if it is not on PATH
tool() {
    on_path "$1" && return
    is_built "$1" || { mkdir -p "$tools" && locked "$tools/.lock" build_tool "$@"; }
    echo "$tools/$1"
}

# on_path NAME: the first program of that name on PATH that is no script of this repository, in any of its copies
on_path() {
    local found real
    while read -r found; do
        real=$(readlink -f "$found")
        [ -r "${real%/*}/programs.sh" ] || { echo "$found" && return; }
    done < <(type -aP "$1")
    return 1
}

is_built() { [ -x "$tools/$1" ] && ! [ "$root/tests/servers/go.sum" -nt "$tools/$1" ]; }

build_tool() {
    ! is_built "$1" || return 0 # by the one we waited for
    command -v go >/dev/null ||
        die "neither $1 nor go is on PATH: install Go (https://go.dev/dl) or put $1 on PATH"
    say "building $1 (once; some minutes)"
    (
        only_stdio
        cd "$root/tests/servers"
        exec go build -o "$tools/$1.new" "$2"
    ) </dev/null >&2 || die "building $1 failed"
    mv "$tools/$1.new" "$tools/$1"
}

# spicedb_binary [VERSION]: the server, or an older or newer one, built once
spicedb_binary() {
    [ -n "${1:-}" ] || { tool spicedb github.com/authzed/spicedb/cmd/spicedb && return; }
    [[ $1 =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || misuse "--version must be one such as v1.45.4: '$1'"
    [ -x "$tools/spicedb-$1" ] || { mkdir -p "$tools" && locked "$tools/.lock" build_version "$1"; }
    echo "$tools/spicedb-$1"
}

# build_version VERSION: from a copy of its module, whose own go.mod lists its dependencies
build_version() {
    local module source=$tools/.source-$1
    [ ! -x "$tools/spicedb-$1" ] || return 0 # by the one we waited for
    command -v go >/dev/null || die "to build SpiceDB $1 Go is needed: install it (https://go.dev/dl)"
    say "building spicedb $1 (once; some minutes)"
    (
        only_stdio
        case $1 in v1.5[7-9].* | v1.[6-9]?.*) export GOTOOLCHAIN=go1.27.3 ;; esac
        cd /
        module=$(go mod download -json "github.com/authzed/spicedb@$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p')
        rm -rf "$source"
        cp -r "$module" "$source"
        chmod -R u+w "$source"
        cd "$source"
        go build -o "$tools/spicedb-$1.new" ./cmd/spicedb
        rm -rf "$source"
    ) </dev/null >&2 || die "building SpiceDB $1 failed"
    mv "$tools/spicedb-$1.new" "$tools/spicedb-$1"
}

toxiproxy_binary() {
    command -v toxiproxy-server || tool toxiproxy github.com/Shopify/toxiproxy/v2/cmd/server
}

# apt_install WHAT PACKAGE...: installs them if permitted, without starting any system service
apt_install() {
    local what=$1
    shift
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        die "$what is not installed: install it (on Debian: apt-get install $*)"
    fi
    say "$what is not installed: running apt-get install $*"
    folder 700 "$run"
    locked "$run/apt.lock" apt_get "$@" || die "apt-get could not install $what"
}

apt_get() {
    (
        only_stdio
        export DEBIAN_FRONTEND=noninteractive
        apt-get -q -o DPkg::Lock::Timeout=300 update &&
            apt-get -q -y -o DPkg::Lock::Timeout=300 install --no-install-recommends "$@"
    ) </dev/null >&2
}
