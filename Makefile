# Two commands matter: `make demo` and `make test`. Each sets up .venv first if need be; `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# pip reads these in isolated builds too. Relative, because pip splits the variable at spaces.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CORE_SOURCES := $(shell find csrc/core -name '*.cpp')
NATIVE_TESTS := $(wildcard tests/native/*.cpp)
CPP_FILES := $(shell find csrc tests -name '*.cpp' -o -name '*.hpp' -o -name '*.cu' -o -name '*.cuh')
BUILD_INPUTS := setup.py pyproject.toml constraints.txt $(CPP_FILES)
PYTHON_FILES := graphmatch exgra_adapter tests setup.py $(wildcard benchmarks)

RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench

.DELETE_ON_ERROR:
.PHONY: help demo test test-all lint format bench bench-report sanitize clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

demo: $(RUN)  ## train and evaluate a tiny ExGra-Med on synthetic images; report in runs/demo
	$(BIN)/exgra-med demo

test: $(DEV)  ## run the tests, without those marked slow
	$(BIN)/pytest -m "not slow"

test-all: $(DEV)  ## run every test
	$(BIN)/pytest

lint: $(DEV)  ## check style, formatting and types
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

format: $(DEV)  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(CPP_FILES)

bench: $(BENCH)  ## measure speed and quality, with the peers in the same run
	$(BIN)/pytest benchmarks --benchmark-only

bench-report: $(BENCH)  ## run the learning experiments and write benchmarks/results/report.md
	$(BIN)/python -m benchmarks.alignment
	$(BIN)/python -m benchmarks.keypoint_learning
	$(BIN)/python -m benchmarks.report

sanitize: build/sanitize/address build/sanitize/thread  ## run the native tests under ASan, UBSan and TSan
	build/sanitize/address
	build/sanitize/thread

clean:  ## remove what the targets made, except runs/
	rm -rf $(VENV) build dist *.egg-info graphmatch/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find graphmatch exgra_adapter tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable installs: the tests and the demo then run this tree's Python beside the compiled modules.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(RUN): $(VENV)/bin/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --editable ".[exgra,viz]"
	touch $@

$(DEV): $(VENV)/bin/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --editable ".[exgra,viz,dev]"
	touch $(RUN) $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --editable ".[exgra,viz,dev,bench]"
	touch $@

SANITIZE_FLAGS := -std=c++17 -O1 -g -fopenmp-simd -Wall -Wextra -Werror -fno-omit-frame-pointer -fno-sanitize-recover=all -pthread -Icsrc
build/sanitize/address: SANITIZER := address,undefined
build/sanitize/thread: SANITIZER := thread
build/sanitize/address build/sanitize/thread: $(CORE_SOURCES) $(NATIVE_TESTS) $(CPP_FILES)
	mkdir -p $(@D)
	$(CXX) $(SANITIZE_FLAGS) -fsanitize=$(SANITIZER) $(CORE_SOURCES) $(NATIVE_TESTS) -o $@
