#!/bin/bash
# Puts the pinned packages of the edge's tests into the directory $1, unless they are there already. Prints what was wrong.
set -eu -o pipefail

to=$(realpath -m "${1:?usage: tests/edge/install.sh DIRECTORY}")
mkdir -p "$to"
cd "$(dirname "$0")"

# Tests run side by side: one installs, the others wait.
exec 9>"$to.lock"
flock 9

stamp=$(sha256sum requirements.txt | cut -d ' ' -f 1)
[ "$(cat "$to/stamp" 2>/dev/null || true)" != "$stamp" ] || exit 0
rm -rf "$to"
mkdir -p "$to"
/usr/bin/python3 -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --no-deps --only-binary :all: --target "$to" -r requirements.txt 9>&-
echo "$stamp" >"$to/stamp"
