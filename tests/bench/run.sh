#!/usr/bin/env bash
# Builds what is measured with full optimisation, installs the references (Debian packages), runs the benchmarks, and keeps the
# table in docs/verify/bench.md. RUNLET_BENCH_QUICK=1 runs a short version and keeps nothing; so does RUNLET_BENCH_ONLY=PART,PART
# (python, node, cold, stem, ci, webhook, async, cron, queue, functions).
set -euo pipefail
cd "$(dirname "$0")/../.."

missing=()
for program in runc crun bwrap podman cron; do
    command -v "$program" >/dev/null || missing+=("${program/bwrap/bubblewrap}")
done
if [ "${#missing[@]}" -gt 0 ] && command -v apt-get >/dev/null; then
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null || {
        apt-get update -qq && apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
    } || echo "bench: could not install ${missing[*]}: these references are left out" >&2
fi

# npm's reference; without node or npm it is left out.
peers=$(realpath -m "${CARGO_TARGET_DIR:-target}/bench-peers")
if command -v npm >/dev/null; then
    mkdir -p "$peers"
    cp tests/bench/graphile.mjs "$peers/"
    if [ -d "$peers/node_modules/graphile-worker" ] ||
        (cd "$peers" && npm install --no-save --ignore-scripts --no-audit --no-fund --loglevel=error graphile-worker@0.17.3 >&2); then
        export RUNLET_BENCH_PEERS=$peers
    else
        echo "bench: could not install graphile-worker: this reference is left out" >&2
    fi
fi

cargo build --release --locked --bin runlet >&2
if [ -n "${RUNLET_BENCH_QUICK:-}${RUNLET_BENCH_ONLY:-}" ]; then
    exec cargo bench --locked --bench bench -q
fi
mkdir -p docs/verify
table=$(mktemp)
trap 'rm -f "$table"' EXIT
cargo bench --locked --bench bench -q | tee "$table"
cp "$table" docs/verify/bench.md
