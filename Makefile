# One command per intent; `make` alone lists them. CI runs `make check` and nothing else (.ci/run).
# ARGS goes to the command: make test ARGS='--test system ingest', make run ARGS='--log debug', make psql ARGS='-c "SELECT 1"'.

SERVICES_DIR ?= data/services
ARGS ?=
# Two per core: most tests wait. On 2 cores all tests take 7.5 minutes instead of 10.
export RUST_TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

.DEFAULT_GOAL := help
.PHONY: help run run-full run-card perf-http perf-card bench-cache seed-posts locust services services-down psql redis-cli rust test test-long fuzz check fmt perf perf-scale clean

help: ## this list
	@echo 'make TARGET [ARGS=…]'
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/  \1\t\2/p' Makefile | expand -t 18

run: rust ## release build on the embedded stores (SQLite, memory): needs no server
	cargo run --release --locked -- serve $(ARGS)

# A journal belongs to one pair of stores: that of `make run` is in ./data, this one's in ./data/full.
run-full: rust services ## the same on a private PostgreSQL and Redis, under data/services
	@urls=$$(.ci/services env '$(SERVICES_DIR)') && export $$urls && \
	DATA_DIR="$${DATA_DIR:-data/full}" exec cargo run --release --locked -- serve $(ARGS)

# In a database and under keys of its own. Loopback only.
run-card: rust services ## a baseline, not the tracker: the design card as written, on 127.0.0.1:8081 (ARGS=address:port)
	@cargo build --release --locked --manifest-path perf/baselines/card/Cargo.toml --target-dir target/baselines
	@.ci/services psql '$(SERVICES_DIR)' -qAtc "SELECT 'CREATE DATABASE card' WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = 'card')" | \
	.ci/services psql '$(SERVICES_DIR)' -q
	@urls=$$(.ci/services env '$(SERVICES_DIR)') && export $$urls && \
	DATABASE_URL=$$(echo "$$DATABASE_URL" | sed 's|/[^/?]*\([?].*\)\{0,1\}$$|/card\1|') exec target/baselines/release/baseline-card $(ARGS)

rust: # an old cargo fails with an obscure message
	@.ci/rust

services: ## start only that PostgreSQL and Redis (installed if missing)
	@.ci/services up '$(SERVICES_DIR)'

services-down: ## stop them and keep their data
	@.ci/services down '$(SERVICES_DIR)'

psql: ## a shell on that PostgreSQL
	@.ci/services psql '$(SERVICES_DIR)' $(ARGS)

redis-cli: ## a shell on that Redis
	@.ci/services redis-cli '$(SERVICES_DIR)' $(ARGS)

test: rust ## all tests; they start their own PostgreSQL and Redis (installed if missing)
	.ci/install postgres redis
	cargo test --locked --no-fail-fast $(ARGS)

test-long: rust ## tests that wait or measure (half a minute each)
	.ci/install postgres redis
	cargo test --locked --no-fail-fast $(ARGS) -- --ignored --nocapture

fuzz: rust ## coverage-guided fuzzing against models, FUZZ_SECONDS (600) per target (ARGS: head chunks query events)
	tests/fuzz/run $(ARGS)

check: rust ## format, lints, all tests: what CI runs
	cargo fmt --check
	cargo clippy --locked --all-targets -- -D warnings
	$(MAKE) test

fmt: rust ## format the sources
	cargo fmt

perf: rust ## load test with wrk on private servers, writes perf/results (ARGS=--quick: 5 s per run)
	perf/ingest $(ARGS)

perf-http: rust ## a trivial GET beside may_minihttp, actix-web and axum, each alone on one core (ARGS=--quick)
	perf/http $(ARGS)

perf-card: rust ## the design card as written beside the tracker (ARGS=--quick)
	perf/card $(ARGS)

bench-cache: rust ## the read path: queries per generation, killed lock holders, a cached list beside the trivial GET (12 min)
	perf/cache $(ARGS)

perf-scale: rust services ## every statistics query on a generated ledger (ARGS='EVENTS [DAYS]', default 1000000; 100 million need 50 GB; LEDGER=sqlite)
	perf/scale/run $(or $(ARGS),1000000)

seed-posts: rust ## put the 1,000 posts of the predecessor's load on a server, 127.0.0.1:8080 (ARGS='--url …')
	cargo run --release --locked -- seed posts $(ARGS)

locust: rust ## the predecessor's load with 500 and 1,000 users, 5 min each, writes perf/results (LOCUST_SECONDS=20: a trial)
	perf/locust/run

clean: rust ## remove build results, keep ./data
	cargo clean
