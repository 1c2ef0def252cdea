# Two commands matter: `make run` shows runlet at work, `make test` proves it. Both install what is missing first.
# Needed beforehand: git, make and Rust 1.94 or newer, on Linux, as root (sandboxes need the kernel's help).

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export CARGO_TERM_PROGRESS_WHEN ?= never

NEXTEST := $(shell command -v cargo-nextest 2>/dev/null)
DENY := $(shell command -v cargo-deny 2>/dev/null)

.PHONY: help check setup peers build run test lint unit-and-it bench verify-crash verify-async verify-api verify-edge verify-postgres verify-upgrade verify-v2 verify-cron verify-brokers verify-soak sqlx clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | sort | awk -F'\t' '{printf "  make %-14s %s\n", $$1, $$2}'

check: ## Check the prerequisites, and say how to get what is missing
	@tests/setup.sh check

setup: check ## Install what is missing of Postgres, Python, Node and Perl (Debian packages; starts no service)
	@tests/setup.sh install

peers: check
	@tests/setup.sh install tests
	@tests/peers/install.sh "$${CARGO_TARGET_DIR:-target}/peers"

build: check ## Build everything (debug profile)
	@cargo build --locked --workspace

run: setup ## Build, start, deploy the examples, send a signed push, show what happened, serve until Ctrl-C
	@tests/demo.sh

test: peers lint unit-and-it ## Format, lints, unit tests, and the real server with a real Postgres and real sandboxes

lint:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets --quiet -- -D warnings
ifneq ($(DENY),)
	cargo deny check bans licenses sources
endif

unit-and-it:
ifneq ($(NEXTEST),)
	cargo nextest run --locked --workspace
else
	cargo test --locked --workspace -- --test-threads=2
endif

bench: setup ## Measure calls, sandboxes and webhooks beside references of their own
	@tests/bench/run.sh

verify-crash: setup ## kill -9 the server 20 times amid accepted work; the table goes to docs/verify/crash.md
	@tests/verify.sh crash

verify-async: setup ## kill -9 one of three servers 40 times amid 10,000 asynchronous invocations; the table goes to docs/verify/async.md
	@tests/verify.sh async servers::kill

verify-api: setup ## PyPI's schemathesis against the API's own document, 60 s as each role; the table goes to docs/verify/api.md
	@tests/verify.sh api schemathesis

verify-edge: setup ## Slow and hostile clients in full size, HTTP/1.1 and HTTP/2; the table goes to docs/verify/edge.md
	@tests/verify.sh edge slow

verify-cron: setup ## Schedules against croner and cronsim on 2,000 random patterns, clocks and servers; the table goes to docs/verify/cron.md
	@tests/verify.sh cron

verify-postgres: setup ## Cut, kill, stop and freeze Postgres under load; the table goes to docs/verify/postgres.md
	@tests/verify.sh postgres

verify-brokers: peers ## 10,000 messages of NATS and RabbitMQ, and of a built-in queue, with broker and server killed; the table goes to docs/verify/brokers.md
	@tests/setup.sh install tests
	@tests/verify.sh brokers queue

verify-upgrade: setup ## Build the previous release, work with it, and go on with this one on its data
	@tests/verify.sh upgrade

verify-v2: setup ## Run the executor on a kernel with pure cgroup v2, in qemu
	@tests/verify.sh v2

verify-soak: setup ## 10,000 sandboxes and 1,000,000 warm calls: memory, descriptors, mounts, cgroups, namespaces and uids stay flat
	@tests/verify.sh soak

sqlx: setup ## Check the SQL against a real Postgres and renew core/.sqlx
	@core/sqlx-prepare.sh

clean: ## Remove build products (the data of `make run` stays: it is in /var/lib/runlet)
	cargo clean
