# PostgreSQL and MariaDB, one of each per state folder, and the databases in them. A part of tests/servers/spicedb.
# shellcheck shell=bash
# shellcheck disable=SC2154 # what is not set here is set by tests/servers/spicedb, which reads this file

find_postgres() {
    local initdb
    while read -r initdb; do
        [ ! -x "$initdb" ] || [ ! -x "${initdb%/*}/pg_ctl" ] || { pg_bin=${initdb%/*} && return 0; }
    done < <(printf '%s\n' /usr/lib/postgresql/*/bin/initdb /usr/pgsql-*/bin/initdb | sort -rV
        command -v initdb)
    return 1
}

install_postgres() {
    local no_cluster=/etc/postgresql-common/createcluster.d/spicedb-scripts.conf
    if ! find_postgres; then
        if [ "$(id -u)" = 0 ]; then # the package must not create a system cluster
            mkdir -p "${no_cluster%/*}" && echo 'create_main_cluster = false' >"$no_cluster"
        fi
        apt_install PostgreSQL postgresql
        rm -f "$no_cluster"
        find_postgres || die "PostgreSQL was installed, but initdb and pg_ctl were not found"
    fi
}

# as_pg_owner COMMAND...: PostgreSQL refuses to run as root
as_pg_owner() {
    (
        only_stdio
        cd /
        [ "$(id -u)" = 0 ] || exec "$@"
        exec setpriv --reuid="$pg_owner" --regid="$(id -gn "$pg_owner")" --init-groups -- "$@"
    ) </dev/null
}

need_postgres() {
    folder 711 "$state/.postgres"
    locked "$state/.postgres/lock" start_postgres
}

start_postgres() {
    local here=$state/.postgres home
    install_postgres
    pg_owner=$(id -un)
    [ "$(id -u)" != 0 ] || { id postgres >/dev/null 2>&1 && pg_owner=postgres; } || pg_owner=nobody
    if alive "$here/pid"; then return; fi
    if [ ! -r "$here/home" ]; then
        home=$here/home.d
        rm -rf "$home"
        as_pg_owner test -x "$here" || home=$(mktemp -d /var/tmp/spicedb-postgres.XXXXXX) # others cannot enter a parent folder
        folder 700 "$home"
        (umask 077 && new_secret >"$home/password")
        [ "$(id -u)" != 0 ] || chown -R "$pg_owner" "$home"
        as_pg_owner "$pg_bin/initdb" -D "$home/data" --no-sync --no-locale --encoding=UTF8 \
            --username=postgres --auth=scram-sha-256 --pwfile="$home/password" >"$here/initdb.log" 2>&1 ||
            { tail -n 20 "$here/initdb.log" >&2 && rm -rf "$home" && die "initdb failed"; }
        echo "$home" >"$here/home"
    fi
    home=$(cat "$here/home")
    reserve_port_again "$here"
    end_stray_postgres
    as_pg_owner "$pg_bin/pg_ctl" -D "$home/data" -l "$home/log" -w -t 60 -o "-p $port -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories= -c max_connections=600 -c track_commit_timestamp=on -c jit=off \
        -c fsync=off -c synchronous_commit=off -c full_page_writes=off" start >/dev/null 2>&1 ||
        { tail -n 20 "$home/log" >&2 && die "PostgreSQL did not start"; }
    echo "$port" >"$here/port"
    identity "$(head -n 1 "$home/data/postmaster.pid")" >"$here/pid" || die "PostgreSQL ended at once"
    give_port_to "$here/pid"
}

# end_stray_postgres: what an interrupted start or a crash may have left on the data in $home
end_stray_postgres() {
    local stray command
    { read -r stray <"$home/data/postmaster.pid"; } 2>/dev/null || return 0
    command=$(tr '\0' ' ' 2>/dev/null <"/proc/$stray/cmdline" || true)
    if [[ $command == *" -D $home/data "* ]] && identity "$stray" >"$here/pid"; then end "$here/pid" INT 60; fi
    rm -f "$home/data/postmaster.pid" # the process that it names has ended, or the pid was reused
}

pg_password() { cat "$(cat "$state/.postgres/home")/password"; }

postgres_client() { # DATABASE PSQL-ARGUMENTS...
    local database=$1
    shift
    PGPASSWORD=$(pg_password) "$pg_bin/psql" -X -q -h 127.0.0.1 -p "$(cat "$state/.postgres/port")" \
        -U postgres -d "$database" -v ON_ERROR_STOP=1 "$@"
}

find_mariadb() {
    PATH=$PATH:/usr/sbin:/usr/local/sbin
    command -v mariadbd >/dev/null && command -v mariadb-install-db >/dev/null && command -v mariadb >/dev/null
}

need_mysql() {
    folder 700 "$state/.mysql"
    locked "$state/.mysql/lock" start_mysql
}

start_mysql() {
    local here=$state/.mysql waited=0
    find_mariadb || apt_install MariaDB mariadb-server-core mariadb-client-core # the packages without the service
    find_mariadb || die "MariaDB was installed, but mariadbd, mariadb-install-db and mariadb were not found"
    alive "$here/pid" || launch_mysql
    until mysql_client mysql -e 'SELECT 1' >/dev/null 2>&1; do
        if ! alive "$here/pid" || [ $((waited += 1)) -gt 1200 ]; then
            tail -n 20 "$here/log" >&2 && die "MariaDB did not start"
        fi
        sleep 0.05
    done
}

launch_mysql() {
    local -a as=()
    [ "$(id -u)" != 0 ] || as=(--user=root)
    if [ ! -d "$here/data" ]; then
        rm -rf "$here/data.new"
        (umask 077 && new_secret >"$here/password")
        (
            only_stdio
            cd "$here" # it fails on a space in a path; --force: and on a host without a name
            exec mariadb-install-db --no-defaults "${as[@]}" --datadir=./data.new --skip-test-db --force
        ) </dev/null >"$here/install.log" 2>&1 ||
            { tail -n 20 "$here/install.log" >&2 && die "mariadb-install-db failed"; }
        printf '%s\n' "CREATE USER IF NOT EXISTS spicedb@'127.0.0.1' IDENTIFIED BY '$(cat "$here/password")';" \
            "GRANT ALL ON *.* TO spicedb@'127.0.0.1';" >"$here/init.sql"
        mv "$here/data.new" "$here/data"
    fi
    reserve_port_again "$here"
    daemon "$here/log" "$(command -v mariadbd)" --no-defaults "${as[@]}" --datadir="$here/data" \
        --port="$port" --bind-address=127.0.0.1 --skip-name-resolve --init-file="$here/init.sql" \
        --socket="$run/mysql-$port.sock" --pid-file="$here/mariadbd.pid" \
        --max-connections=600 --innodb-flush-log-at-trx-commit=0 --skip-log-bin
    identity $! >"$here/pid" || die "MariaDB ended at once"
    echo "$port" >"$here/port"
    give_port_to "$here/pid"
}

mysql_client() { # DATABASE CLIENT-ARGUMENTS...
    local database=$1
    shift
    MYSQL_PWD=$(cat "$state/.mysql/password") mariadb --no-defaults --protocol=tcp -h 127.0.0.1 \
        -P "$(cat "$state/.mysql/port")" -u spicedb --batch --skip-column-names "$@" "$database"
}

# stop_database_server KIND: by the signal that ends its connections and shuts it down cleanly
stop_database_server() {
    local signal=TERM
    [ "$1" = mysql ] || signal=INT
    [ -d "$state/.$1" ] || return 0
    locked "$state/.$1/lock" end "$state/.$1/pid" "$signal" 60
    release_port "$state/.$1"
    rm -f "$state/.$1/pid"
}

# create_database, drop_database: of the server in $server, whose datastore is $datastore
create_database() {
    local options=
    database=spicedb_$(tr -c 'a-z0-9\n' _ <<<"${name,,}")_$(new_secret | cut -c1-8)
    [ "$locale" != icu ] ||
        options="TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C' ENCODING 'UTF8'"
    if [ "$datastore$locale" = postgres ]; then
        locked "$state/.postgres/template.lock" copy_template && return
    fi
    case $datastore in
    postgres) postgres_client postgres -c "CREATE DATABASE $database $options" ;;
    mysql) mysql_client mysql -e "CREATE DATABASE $database CHARACTER SET utf8mb4" ;;
    spanner)
        database=db_$(new_secret | cut -c1-16) # 30 characters at most
        create_spanner_database "$database"
        ;;
    memory) return ;;
    esac >&2 || die "the database of $name could not be created"
    echo "$database" >"$server/database"
    migrate_database
}

# copy_template: makes $database from one that this SpiceDB has migrated once, in a tenth of the time. It becomes a
# datastore of its own by its id
copy_template() {
    local new=$database template
    template=template_$(md5sum <<<"$binary $(stat -c '%s %Y' "$binary")" | cut -c1-16)
    if [ ! -e "$state/.postgres/$template" ]; then
        postgres_client postgres -c "DROP DATABASE IF EXISTS $template" -c "CREATE DATABASE $template" >&2 || return
        database=$template
        migrate_database
        environment=() database=$new
        : >"$state/.postgres/$template"
    fi
    postgres_client postgres -c "CREATE DATABASE $database TEMPLATE $template" >&2 || return
    postgres_client "$database" -c "UPDATE metadata SET unique_id = gen_random_uuid()" >&2 || return
    echo "$database" >"$server/database"
    connection_uri
}

# migrate_database: brings SpiceDB's tables into $database
migrate_database() {
    connection_uri
    (
        only_stdio
        export "${environment[@]}"
        exec "$binary" datastore migrate head --datastore-engine="$datastore" --log-format=json --skip-release-check
    ) </dev/null >>"$server/log" 2>&1 || { show_log && die "the datastore of $name could not be migrated"; }
}

# reconnect_database: the $database that there was. An emulator of Spanner that was stopped has lost it
reconnect_database() {
    if [ "$datastore" = spanner ] && ! has_spanner_database "$database"; then
        create_spanner_database "$database"
        migrate_database
    else
        connection_uri
    fi
}

connection_uri() { # adds to $environment: a command line could be read by all users
    case $datastore in
    postgres) uri="postgres://postgres:$(pg_password)@127.0.0.1:$(cat "$state/.postgres/port")/$database?sslmode=disable" ;;
    mysql) uri="spicedb:$(cat "$state/.mysql/password")@tcp(127.0.0.1:$(cat "$state/.mysql/port"))/$database?parseTime=true" ;;
    spanner) spanner_uri ;;
    memory) return ;;
    esac
    environment+=("SPICEDB_DATASTORE_CONN_URI=$uri")
}

drop_database() {
    local kind
    [ -r "$server/database" ] || return 0
    kind=$(cat "$server/datastore")
    alive "$state/.$kind/pid" || return 0
    case $kind in
    postgres) find_postgres && postgres_client postgres -c "DROP DATABASE IF EXISTS $(cat "$server/database") WITH (FORCE)" ;;
    mysql) find_mariadb && mysql_client mysql -e "DROP DATABASE IF EXISTS $(cat "$server/database")" ;;
    spanner) drop_spanner_database "$(cat "$server/database")" ;;
    esac >&2 || say "the database of $name could not be dropped"
}
