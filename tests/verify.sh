#!/bin/bash
# Full-size runs that CI cannot hold: `tests/verify.sh NAME [MODULE]` runs a module of tests/it at full size and writes its table, with the commit, to docs/verify/NAME.md.
set -eu -o pipefail
cd "$(dirname "$0")/.."

name=${1:?usage: tests/verify.sh NAME [MODULE OF THE TESTS]}
table=$(mktemp)
trap 'rm -f "$table"' EXIT

export RUNLET_TEST_SCALE=full RUNLET_VERIFY_TABLE=$table
case $name in
upgrade) tests/upgrade/run.sh ;;
v2) tests/v2/run.sh ;;
cron) # The oracles write the table; the rest of it has to be right, in full size.
    timeout 20m cargo test --locked -p runlet-triggers --test oracles -- --nocapture --test-threads=1
    timeout 60m cargo test --locked --test it cron:: -- --nocapture --test-threads=2
    ;;
edge | soak) # As it is shipped: a debug build is so slow that it is the attack, and a million calls take it an hour.
    timeout 60m cargo test --locked --release --test it "${2:-$name}::" -- --nocapture --test-threads=1
    ;;
*) timeout 60m cargo test --locked --test it "${2:-$name}::" -- --nocapture ;;
esac

mkdir -p docs/verify
changed=''
git diff --quiet HEAD -- . ':!docs/verify' || changed=' with changes'
{
    printf '# %s\n\n' "verify-$name"
    printf 'Commit `%s`%s, %s, %s cores, Linux %s. Made by `make verify-%s`.\n\n' \
        "$(git rev-parse --short=12 HEAD)" "$changed" "$(date -u +%Y-%m-%d)" "$(nproc)" "$(uname -r)" "$name"
    cat "$table"
} >"docs/verify/$name.md"
echo "runlet: docs/verify/$name.md is written"
