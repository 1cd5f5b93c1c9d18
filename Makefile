# make check   while working: format, lints, unit tests, the pure core alone
# make test    everything that can be tested on this machine
# make demo    the gate between a real CRI client and a real containerd, as a transcript
# make corpus  every verifier's answer to signed images and forgeries (part of make test)
# make fuzz    every parser under libFuzzer, SECONDS=60 each; TARGETS="bundle sct" for some
# make soak MINUTES=20   the gate under load while everything around it is stopped and killed
# make mutants   does a test fail for every change of the verification core? (hours; tests/mutants.md)
# make mutants-change   the same for what a change touches, before it lands
# make bench   the benchmark, beside the peers
# make deb     the Debian package, in target/debian
# make advisories   known vulnerabilities of the dependencies (needs the Internet)
#
# PULLGATE_TOOLS is the folder of the real components (tests/tools/README.md).

SHELL := /bin/bash
MINUTES ?= 3
export PULLGATE_TOOLS ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pullgate/tools
export PATH := $(PULLGATE_TOOLS)/cargo/bin:$(PATH)

# Prints what each stage took, in minutes.
stage := tests/stage

# containerd, mounts and pods need root; compiling does not. Only the test binary runs with sudo.
, := ,
as_root := $(if $(filter-out 0,$(shell id -u)),sudo --preserve-env=CI$(,)PATH$(,)PULLGATE_TOOLS$(,)PULLGATE_BIN$(,)PULLGATE_SOAK_SECONDS)

# Stages share two cores and one target folder, and people read their output.
.NOTPARALLEL:
.PHONY: check test corpus demo bench deb advisories mutants mutants-change mutations fuzz fuzz-seeds soak
.PHONY: tools protoc fmt clippy unit doc core deny deb-test it root

check: fmt clippy unit doc core

# The integration tests come last, so that the output ends with cargo's own summary.
test: tools root check mutations deny deb-test it

tools:
	@$(stage) "tools" tests/tools/install

# The CRI and containerd types are generated at build time.
protoc:
	@command -v protoc >/dev/null || tests/tools/install debian

fmt:
	@$(stage) "format" cargo fmt --check

clippy: protoc
	@$(stage) "clippy" cargo clippy --locked --all-targets -- -D warnings

unit: protoc
	@$(stage) "unit tests" cargo test --locked --lib --bins

doc: protoc
	@$(stage) "documentation tests" cargo test --locked --doc

# The fuzz targets over two thousand mutations of each seed. The fuzzer itself is `make fuzz`: its
# copy of all dependencies takes ten minutes to build.
mutations: protoc
	@$(stage) "fuzz targets" env PULLGATE_MUTATIONS=2000 cargo test --locked --lib fuzz::tests::

# Part of `make test` for three minutes.
soak: protoc root
	@echo "== soak, $(MINUTES) minutes"
	@$(if $(as_root),CARGO_TARGET_$(target_env)_RUNNER="$(as_root)") PULLGATE_SOAK_SECONDS=$$(($(MINUTES) * 60)) \
	    cargo test --locked --test it soak -- --nocapture

# The modules that decide build without everything that does I/O.
core:
	@$(stage) "pure core" cargo clippy --locked --lib --no-default-features -- -D warnings

# Without the advisory database, which needs the Internet: `make advisories`.
deny:
	@if command -v cargo-deny >/dev/null; then \
	    $(stage) "cargo deny" cargo deny --locked check bans licenses sources; \
	elif [ "$$CI" = true ]; then echo "cargo-deny is missing: run tests/tools/install cargo" >&2; exit 1; \
	else echo "skip  cargo deny: cargo-deny is not installed (tests/tools/install cargo)"; fi

# Bounded by MUTANTS_MINUTES; at once where src/sigstore is as before.
mutants-change:
	@$(stage) "mutants of the change" tests/mutants/change

# SHARD=0/8 is one eighth of the mutants, for machines that share the work.
mutants:
	@$(stage) "mutants" cargo mutants --output target/mutants $(if $(SHARD),--shard $(SHARD))
	@$(if $(SHARD),:,$(stage) "deleted checks" tests/mutants/checks run target/mutants/checks)

deb-test: protoc
	@$(stage) "package" tests/packaging/deb

# Last, and without a line of ours after cargo's summary, which says how long the tests took.
it: protoc root
	@$(stage) "build of the integration tests" cargo test --locked --test it --no-run
	@echo "== integration and end-to-end tests"
	@$(if $(as_root),CARGO_TARGET_$(target_env)_RUNNER="$(as_root)") cargo test --locked --test it

target_env = $(shell rustc -vV | sed -n 's/^host: //p' | tr a-z- A-Z_)

# Says once, and before an hour of work, that the container parts need root.
root:
	@if [ -n "$(as_root)" ]; then \
	    echo "the container parts run with sudo"; \
	    sudo -v || { echo "they need root: run as root, or allow sudo" >&2; exit 1; }; fi

corpus: protoc
	@$(stage) "corpus" cargo test --locked --test it -- --nocapture corpus::

demo: protoc
	@tests/demo/run

SECONDS ?= 60
fuzz: protoc
	@command -v cargo-fuzz >/dev/null || tests/tools/install testing
	@fuzz/run $(SECONDS) $(TARGETS)

# New keys, and with them every seed that is signed; the others stay.
fuzz-seeds:
	cargo test --locked --no-default-features --lib -- --ignored sigstore::fuzz::seeds

bench: protoc
	@tests/bench/run

deb: protoc
	@packaging/build-deb

advisories:
	cargo deny --locked check advisories
