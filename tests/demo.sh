#!/bin/bash
# `make run`: build, start, deploy the examples, send a signed GitHub push, show what became of it, serve until Ctrl-C.
# RUNLET_DATA_DIR (default /var/lib/runlet) and RUNLET_LISTEN say where; what is there from before is used.
set -eu -o pipefail
cd "$(dirname "$0")/.."

export RUNLET_DATA_DIR=${RUNLET_DATA_DIR:-/var/lib/runlet}
config=$RUNLET_DATA_DIR/runlet.toml
secret=$RUNLET_DATA_DIR/gh-hook.secret
log=$RUNLET_DATA_DIR/serve.log
server=''

if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' dim=$'\e[2m' plain=$'\e[0m'; else bold='' dim='' plain=''; fi
say() { printf '\n%s%s%s %s\n' "$bold" "$1" "$plain" "${*:2}"; }
# A command as one would type it, before what it says.
typed() {
    local line='' word
    for word in "$@"; do
        case $word in *[!A-Za-z0-9_./:=-]*) line+=" '$word'" ;; *) line+=" $word" ;; esac
    done
    printf '  %s$%s%s\n' "$dim" "$line" "$plain"
}
show() {
    typed runlet "$@"
    runlet "$@" 2>&1 | sed 's/^/  /'
}

stop() {
    trap '' INT TERM HUP
    [ -z "$server" ] || { kill -TERM "$server" 2>/dev/null && wait "$server" && printf '\nStopped.\n'; } || true
    server=''
}

build() {
    echo "Building (the first time takes some minutes)"
    cargo build --locked --quiet
    target=$(cargo metadata --format-version 1 --no-deps --offline |
        /usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["target_directory"])')
    PATH=$target/debug:$PATH
}

# The operator's part: a configuration that names the webhook's secret, and the secret, random, made once.
configure() {
    install -d -m 0711 "$RUNLET_DATA_DIR"
    [ -e "$secret" ] || (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$secret")
    [ -e "$config" ] || printf '[secrets.gh-hook]\nfile = "%s"\nnamespaces = ["default"]\n' "$secret" >"$config"
}

start() {
    : >"$log"
    # In a session of its own, so that a Ctrl-C reaches it once, through this script.
    setsid runlet serve --config "$config" >>"$log" 2>&1 </dev/null &
    server=$!
    trap 'stop; exit 0' INT TERM HUP
    trap stop EXIT
    until grep -q 'runlet is ready on' "$log"; do
        kill -0 "$server" 2>/dev/null || { echo "The server did not start:" >&2 && tail -n 20 "$log" >&2 && exit 1; }
        sleep 0.05
    done
    url=$(grep -o 'http://[^ ]*' <<<"$(grep -m 1 'runlet is ready on' "$log")")
}

# One field of JSON on stdin: `pick delivery`, `pick invocations 0 id`.
pick() {
    /usr/bin/python3 -c '
import json, sys
value = json.load(sys.stdin)
for key in sys.argv[1:]:
    value = value[int(key) if key.isdigit() else key]
print(value)' "$@"
}

wait_for() {
    while case $(runlet show "$1" --json | pick invocation state) in queued | running) true ;; *) false ;; esac; do
        sleep 0.05
    done
}

build
configure
start
say "runlet serves on $url" "${dim}data: $RUNLET_DATA_DIR, log: $log${plain}"

say "1. The examples are deployed"
for example in examples/*/function.toml; do show deploy "$(dirname "$example")"; done

say "2. GitHub sends a push, signed with the webhook's secret"
push=tests/fixtures/webhooks/github/push.json
typed tests/github_push.py "$url/hooks/gh" "$secret" "$push"
answer=$(/usr/bin/python3 tests/github_push.py "$url/hooks/gh" "$secret" "$push")
printf '  %s\n' "$answer"
delivery=$(pick delivery <<<"$answer")
invocation=$(pick invocations 0 id <<<"$answer")
wait_for "$invocation"

say "3. The delivery is on record, and so is what it started"
show show "$delivery"
show show "$invocation"

say "4. What the function printed in its sandbox"
show logs "$invocation"

say "5. A shell script, called by hand"
show invoke hello-sh --data '{"name": "newcomer"}'

say "6. The history"
show executions --limit 5

say "Now it is yours" "${dim}(Ctrl-C stops the server)${plain}"
cat <<TEXT
  export PATH=$target/debug:\$PATH RUNLET_DATA_DIR=$RUNLET_DATA_DIR
  runlet invoke hello-sh --data '{"name": "you"}'
  curl -H "Authorization: Bearer \$(cat $RUNLET_DATA_DIR/admin.token)" -d '{"name": "you"}' $url/v1/functions/hello-sh/invocations
  curl -H "Authorization: Bearer \$(cat $RUNLET_DATA_DIR/admin.token)" $url/v1/executions
  tests/github_push.py $url/hooks/gh $secret $push
TEXT
wait "$server"
