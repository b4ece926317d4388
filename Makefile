# Two commands do all the set-up: `make run` compiles the matmul kernel for an H100, `make test` runs every check.
# Needs Python 3.11 or newer; everything is installed into .venv.

PYTHON ?= python3
BIN := .venv/bin
OLDEST_TRITON := 3.6.0
JOBS ?= auto

.PHONY: run test lint check-types cross-tools test-newest test-oldest fuzz clean

run: .venv/installed
	$(BIN)/mosaic-compile kernels/matmul.py --target sm90 --kernel matmul

test: lint check-types test-newest test-oldest

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check-types: .venv/installed-dev
	$(BIN)/mypy

test-newest: .venv/installed-dev cross-tools
	$(CROSS) $(BIN)/pytest -n $(JOBS) --dist worksteal

# The same back-end tests under the oldest Triton that is supported; CPUs know nothing of Triton.
test-oldest: .venv/installed-dev .venv/triton-oldest/installed
	PYTHONPATH=.venv/triton-oldest $(BIN)/pytest -n $(JOBS) --dist worksteal tests/lowering tests/kernels tests/driver -k "not cpu"

# What runs code for other machines: emulators, compilers and linkers, Node, a browser. As root on Debian they are installed
# and the tests that need them must run; elsewhere those tests say what is missing and are skipped.
CROSS_COMMANDS := qemu-aarch64 qemu-hexagon aarch64-linux-gnu-gcc clang ld.lld wasm-ld node chromium-headless-shell
CROSS_PACKAGES := qemu-user gcc-aarch64-linux-gnu libc6-dev-arm64-cross clang lld nodejs chromium-headless-shell
CROSS := $(shell test "$$(id -u)" = 0 && grep -qs '^ID=debian' /etc/os-release && echo MOSAIC_CROSS_TOOLS=installed)

cross-tools:
ifneq ($(CROSS),)
	@for command in $(CROSS_COMMANDS); do \
		command -v $$command >/dev/null && continue; \
		apt-get update -qq; \
		exec env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends $(CROSS_PACKAGES) >/dev/null; \
	done
endif

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip

.venv/installed: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

.venv/installed-dev: .venv/installed
	$(BIN)/python -m pip install --quiet --editable ".[dev,torch,jax]"
	touch $@

.venv/triton-oldest/installed: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --target .venv/triton-oldest "triton==$(OLDEST_TRITON)"
	touch $@

# More random kernels than the tests run, with new seeds each time: FUZZ="--count 100000 --seed 7" repeats a run.
FUZZ ?= --seconds 600 --count 1000000 --seed $(shell date +%s)
fuzz: .venv/installed-dev
	$(BIN)/python -m tests.fuzz $(FUZZ)

clean:
	rm -rf .venv build *.egg-info
