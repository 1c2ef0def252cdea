#!/bin/bash
# Puts the pinned packages of the peers into the directory $1, unless they are there already. Prints what was wrong.
set -eu -o pipefail

to=$(realpath -m "${1:?usage: tests/peers/install.sh DIRECTORY}")
mkdir -p "$to"
cd "$(dirname "$0")"

# Tests run side by side: one installs, the others wait.
exec 9>"$to.lock"
flock 9

stamp=$(cat package.json package-lock.json requirements.txt ./*.mjs ./*.py | sha256sum | cut -d ' ' -f 1)
[ "$(cat "$to/stamp" 2>/dev/null || true)" != "$stamp" ] || exit 0

rm -rf "$to"
mkdir -p "$to"
cp package.json package-lock.json ./*.mjs ./*.py "$to/"
(cd "$to" && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error 9>&-)
/usr/bin/python3 -m pip install --quiet --no-input --disable-pip-version-check --root-user-action=ignore \
    --require-hashes --only-binary :all: --target "$to/python" -r requirements.txt 9>&-
echo "$stamp" >"$to/stamp"
