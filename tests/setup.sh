#!/bin/bash
# Checks what must be there before anything is built (`check`), and installs what is missing beyond it (`install`).
# Nothing is touched, and no network used, when nothing is missing. Installing starts no service.
set -eu -o pipefail

RUST_AT_LEAST=1.94

fail() {
    printf 'runlet: %s\n' "$1" >&2
    printf '        %s\n' "${@:2}" >&2
    exit 1
}

# Whether version $1 is $2 or newer.
at_least() { [ "$(printf '%s\n%s\n' "$2" "$1" | sort -V | head -n 1)" = "$2" ]; }

check() {
    [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); sandboxes are made of Linux namespaces" \
        "Run it on Linux: a virtual machine will do."
    command -v git >/dev/null || fail "git is missing" "Debian: apt-get install git"
    command -v cargo >/dev/null && command -v rustc >/dev/null || fail "Rust is missing" \
        "Install Rust $RUST_AT_LEAST or newer: https://rustup.rs"
    local rust
    rust=$(rustc --version | cut -d ' ' -f 2)
    at_least "$rust" "$RUST_AT_LEAST" || fail "rustc is $rust; $RUST_AT_LEAST or newer is needed" "rustup update stable"
    [ "$(id -u)" = 0 ] || fail "this needs root: sandboxes, cgroups and the system user \`runlet\`" \
        "sudo -E env PATH=\"\$PATH\" make ${MAKECMDGOALS:-run}" "The server itself gives root up after its start."
    [ -e /proc/self/ns/user ] || fail "this kernel has no user namespaces" "Use a kernel with CONFIG_USER_NS=y."
    [ -e /proc/self/cgroup ] && grep -q cgroup /proc/mounts || fail "no cgroup hierarchy is mounted" \
        "mount -t cgroup2 none /sys/fs/cgroup"
}

have_postgres() { compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || command -v initdb >/dev/null; }
have_python() { /usr/bin/python3 -c 'import sys; sys.exit(sys.version_info < (3, 9))' 2>/dev/null; }

have_node() { PATH=/usr/local/bin:/usr/bin:/bin node -e 'process.exit(+(parseInt(process.versions.node) < 18))' 2>/dev/null; }
# The tests' own: environments for packages from PyPI, and a clock that can be set.
have_venv() { /usr/bin/python3 -c 'import ensurepip, venv' 2>/dev/null; }
have_faketime() { compgen -G '/usr/lib*/*/faketime/libfaketime.so.1' >/dev/null || compgen -G '/usr/lib*/faketime/libfaketime.so.1' >/dev/null; }
have_perl() { /usr/bin/perl -MJSON::PP -e 1 2>/dev/null; }

missing() {
    have_postgres || echo postgresql
    have_python || echo python3
    have_node || echo nodejs
    have_venv || echo python3-venv
    have_faketime || echo libfaketime
    have_perl || echo perl
    command -v cc >/dev/null || echo gcc libc6-dev
    /usr/bin/python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
    command -v openssl >/dev/null || echo openssl
    command -v slowhttptest >/dev/null || echo slowhttptest
    command -v setpriv >/dev/null || echo util-linux
    command -v useradd >/dev/null || echo passwd
}

# What only the tests need: the peers of tests/peers come from npm and PyPI.
missing_for_tests() {
    command -v npm >/dev/null || echo nodejs npm
    command -v nats-server >/dev/null || echo nats-server
    [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || echo rabbitmq-server
    /usr/bin/python3 -m pip --version >/dev/null 2>&1 || echo python3-pip
}

# Installs packages with both of Debian's switches against starting services held down, and released afterwards.
install_quietly() {
    local policy=/usr/sbin/policy-rc.d kept='' cluster=/etc/postgresql-common/createcluster.d/runlet-setup.conf
    # shellcheck disable=SC2064
    trap "release '$policy' '$cluster'" EXIT
    [ ! -e "$policy" ] || { kept=$policy.runlet-kept && mv "$policy" "$kept"; }
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
    mkdir -p "$(dirname "$cluster")"
    echo 'create_main_cluster = false' >"$cluster"
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "$@" >/dev/null ||
        { apt-get update -qq && apt-get install -y -qq --no-install-recommends "$@" >/dev/null; }
}

release() {
    rm -f "$1" "$2"
    [ ! -e "$1.runlet-kept" ] || mv "$1.runlet-kept" "$1"
    rmdir "$(dirname "$2")" 2>/dev/null || true
}

install() {
    local packages
    packages=$({
        missing
        [ "${1:-}" != tests ] || missing_for_tests
    } | xargs)
    [ -n "$packages" ] || return 0
    command -v apt-get >/dev/null || fail "missing: $packages" \
        "Install them by your distribution's means (the names are Debian's), then try again."
    echo "runlet: installing $packages (no service is started by it)"
    # shellcheck disable=SC2086
    install_quietly $packages
    have_postgres || fail "no initdb in /usr/lib/postgresql/*/bin or PATH" "apt-get install postgresql"
    have_python || fail "/usr/bin/python3 is older than 3.9 or missing" "apt-get install python3"
    have_node || fail "node in /usr/local/bin or /usr/bin is older than 18 or missing" "apt-get install nodejs"
}

case "${1:-}" in
check) check ;;
install) install "${2:-}" ;;
*) fail "usage: tests/setup.sh check | install [tests]" ;;
esac
