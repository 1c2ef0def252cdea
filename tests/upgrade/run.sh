#!/bin/bash
# Takes the previous release's data over: builds that release from git (in target/previous, the first time takes some minutes), and runs
# the tests of tests/it/upgrade.rs between its binary and this tree's. RUNLET_PREVIOUS names a binary that is there already.
set -eu -o pipefail
cd "$(dirname "$0")/../.."

# 0.1.0. With each release this becomes the commit of the one before.
release=0.1.0
commit=3c5f7cc08832

target=$PWD/target/previous
if [ -z "${RUNLET_PREVIOUS:-}" ]; then
    tree=$(mktemp -d)
    trap 'git worktree remove --force "$tree/source" 2>/dev/null || true; rm -rf "$tree"' EXIT
    git worktree add --quiet --detach "$tree/source" "$commit"
    (cd "$tree/source" && CARGO_TARGET_DIR=$target cargo build --locked --quiet --bin runlet)
    RUNLET_PREVIOUS=$target/debug/runlet
fi
export RUNLET_PREVIOUS
log=$(mktemp)
timeout 30m cargo test --locked --test it upgrade:: -- --ignored --nocapture --test-threads=1 | tee "$log"
{
    printf 'From %s (commit `%s`) to this tree.\n\n| what | |\n|---|---|\n' "$release" "$commit"
    sed -n 's/^test upgrade::\([a-z_]*\) \.\.\. .*/\1/p' "$log" | tr _ ' ' | sed 's/.*/| & | ok |/'
} >"${RUNLET_VERIFY_TABLE:-/dev/null}"
