#!/bin/sh
# Writes core/.sqlx anew: what the checked queries were checked against, so that a build needs no database.
# To be run after a change of a query or a migration, and committed with it. Needs Postgres binaries; starts a throwaway instance,
# as the user `postgres` or `nobody` when root runs this.
set -eu
cd "$(dirname "$0")/.."

fail() {
    echo "sqlx-prepare: $*" >&2
    exit 1
}

bin=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
if [ -z "$bin" ]; then
    bin=$(command -v postgres) || fail "there are no Postgres binaries; install them (Debian: package postgresql)"
    bin=$(dirname "$bin")
fi

base=$(mktemp -d "${TMPDIR:-/tmp}/runlet-prepare.XXXXXX")
as=""
if [ "$(id -u)" = 0 ]; then
    user=$(id -un postgres 2>/dev/null || echo nobody)
    chown "$user" "$base"
    as="setpriv --reuid=$user --regid=$(id -gn "$user") --clear-groups"
fi
pg() {
    (cd / && $as "$@")
}

fresh="$PWD/core/.sqlx.new"
finish() {
    pg "$bin/pg_ctl" -D "$base/data" -m immediate stop >/dev/null 2>&1 || true
    rm -rf "$base" "$fresh"
}
trap finish EXIT INT TERM

pg "$bin/initdb" -N -D "$base/data" -U runlet --auth=trust --no-locale -E UTF8 >/dev/null
pg "$bin/pg_ctl" -D "$base/data" -w -l "$base/log" -o "-c listen_addresses= -c unix_socket_directories=$base -c fsync=off" start >/dev/null ||
    fail "Postgres did not start: $(cat "$base/log")"
for migration in migrations/*.sql; do
    "$bin/psql" -q -h "$base" -U runlet -v ON_ERROR_STOP=1 -f "$migration" postgres
done

rm -rf "$fresh"
mkdir "$fresh"
touch core/src/lib.rs
SQLX_OFFLINE=false SQLX_OFFLINE_DIR="$fresh" DATABASE_URL="postgres:///postgres?host=$base&user=runlet" \
    cargo check --quiet --package runlet-core
# Only what changed is copied and what no query uses any more is removed, so that nobody's build starts anew without need.
mkdir -p core/.sqlx
for file in "$fresh"/*.json; do
    cmp -s "$file" "core/.sqlx/$(basename "$file")" || cp "$file" core/.sqlx/
done
for file in core/.sqlx/*.json; do
    [ -e "$fresh/$(basename "$file")" ] || rm "$file"
done
echo "sqlx-prepare: core/.sqlx holds $(ls core/.sqlx | wc -l) queries"
