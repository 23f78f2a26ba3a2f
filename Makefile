# `make picture`, `make demo` and `make test` are where to begin. Each sets up .venv first if need be; `make help` lists all.

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
PYTHON_FILES := graphmatch exgra_adapter tests setup.py $(wildcard benchmarks) $(wildcard docs/*.py) $(wildcard examples)

PARALLEL := --numprocesses auto --dist worksteal

LIBRARY := $(VENV)/.installed-library
RUN := $(VENV)/.installed-run
DEV := $(VENV)/.installed-dev
BENCH := $(VENV)/.installed-bench
CUDA := $(VENV)/.installed-cuda
DOCS := $(VENV)/.installed-docs
BACKEND := build/backend

FLOOR_VERSION := $(shell sed -n 's/.*"transformers>=\([0-9.]*\),.*/\1/p' pyproject.toml).0
FLOOR := $(VENV)/transformers-$(FLOOR_VERSION)
FLOOR_TESTS := test_models.py test_connector.py test_trainer.py test_training.py test_lora.py conversion/test_to_hugging_face.py

.DELETE_ON_ERROR:
.PHONY: help picture demo test test-cuda test-floor test-all coverage mutants lint format docs gallery audit
.PHONY: bench bench-cuda bench-report bench-studies sanitize fuzz stress dist check-dist clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

picture: $(LIBRARY)  ## match two drawings: build/examples/match_drawings.png
	$(BIN)/python examples/match_drawings.py

demo: $(RUN)  ## train and evaluate a tiny ExGra-Med on synthetic images; report in runs/demo
	$(BIN)/exgra-med demo

test: $(DEV)  ## run the tests, without those marked slow
	$(BIN)/pytest $(PARALLEL) -m "not slow"

test-cuda: $(CUDA)  ## build the CUDA module (needs nvcc) and run the tests that need a GPU
	$(BIN)/pytest -m cuda tests

test-floor: $(FLOOR)  ## run the adapter's core tests with the oldest transformers that pyproject.toml admits
	PYTHONPATH=$(FLOOR) $(BIN)/pytest $(PARALLEL) -m "not slow" $(addprefix tests/exgra_adapter/,$(FLOOR_TESTS))

test-all: $(DEV)  ## run every test
	$(BIN)/pytest $(PARALLEL)

coverage: $(DEV)  ## run the tests and count the lines they run; fails below 92 %
	rm -rf build/coverage
	$(BIN)/pytest $(PARALLEL) -m "not slow" --cov --cov-report= --no-cov-on-fail
	for package in graphmatch exgra_adapter; do \
		$(BIN)/coverage report --include="$$package/*" --fail-under=92 --skip-covered --sort=cover || exit 1; \
	done

mutants: $(DEV)  ## try whether the tests catch the seeded bugs; writes their table in tests/README.md
	$(BIN)/python tests/seeded_bugs/run.py --write

lint: $(DEV)  ## check style, formatting and types
	$(BIN)/ruff check $(PYTHON_FILES)
	$(BIN)/ruff format --check $(PYTHON_FILES)
	$(BIN)/mypy
	$(BIN)/mypy $(wildcard examples/*.py)
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)

format: $(DEV)  ## rewrite the sources in the house format
	$(BIN)/ruff check --fix $(PYTHON_FILES)
	$(BIN)/ruff format $(PYTHON_FILES)
	$(BIN)/clang-format -i $(CPP_FILES)

docs: $(DOCS)  ## build the site into build/site; a broken link or anchor fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

gallery: $(RUN)  ## run the examples and draw the pictures of docs/gallery.md again
	for script in examples/[!_]*.py; do \
		picture=docs/images/gallery/$$(basename $$script .py); \
		$(BIN)/python $$script --output $$picture.webp || exit 1; \
		$(BIN)/python $$script --output $$picture-dark.webp --theme dark > /dev/null || exit 1; \
	done

audit: $(DEV)  ## look up the installed packages among known vulnerabilities
	$(BIN)/python tests/packaging/audit.py

bench: $(BENCH)  ## measure speed and quality, with the peers in the same run
	$(BIN)/python -m benchmarks.run --only suites

bench-cuda: $(BENCH) $(CUDA)  ## measure the GPU's share of it, with the CPU in the same run
	$(BIN)/pytest benchmarks/cuda --benchmark-only -m cuda --benchmark-json benchmarks/results/cuda.json
	$(BIN)/python -m benchmarks.cuda_report

bench-report: $(BENCH)  ## measure everything in the report, write it and the README's figures
	$(BIN)/python -m benchmarks.run

bench-studies: $(BENCH)  ## run the studies: gradients and their truths, the price of the alignment, what it teaches
	$(BIN)/python -m benchmarks.studies.gradient_validation
	$(BIN)/python -m benchmarks.studies.overhead
	$(BIN)/python -m benchmarks.studies

sanitize: build/sanitize/address build/sanitize/thread  ## run the native tests under ASan, UBSan and TSan
	build/sanitize/address
	build/sanitize/thread

fuzz: $(DEV)  ## feed broken files to the readers for 24 minutes of processor time
	$(BIN)/python -m tests.robustness.soak fuzz

stress: $(DEV) build/sanitize/thread  ## call all solvers at once for 10 minutes under ThreadSanitizer
	$(BIN)/python -m tests.robustness.soak stress build/sanitize/thread

dist: $(BACKEND)  ## build the sdist, and the wheel from it, into dist/
	rm -rf dist graphmatch.egg-info
	PYTHONPATH=$(BACKEND) $(BIN)/python -c 'from setuptools.build_meta import build_sdist; build_sdist("dist")' > /dev/null
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist dist/*.tar.gz

check-dist: dist  ## install the wheel into an empty environment, without compilers, and try it there
	$(BIN)/python tests/packaging/install_wheel.py dist/*.whl

clean:  ## remove what the targets made, except runs/
	rm -rf $(VENV) build dist *.egg-info graphmatch/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find graphmatch exgra_adapter tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Editable installs: the tests and the demo then run this tree's Python beside the compiled modules.
$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(LIBRARY): $(VENV)/bin/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --editable ".[viz]"
	touch $@

$(RUN): $(VENV)/bin/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --editable ".[exgra,viz]"
	touch $(LIBRARY) $@

# timm and torchvision lie apart: a torchvision that does not fit torch would break every import of transformers.
$(DEV): $(VENV)/bin/python $(BUILD_INPUTS)
	$(BIN)/python -m pip install --editable ".[exgra,viz,chat,dev]"
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VENV)/timm timm torchvision
	touch $(LIBRARY) $(RUN) $@

# The newest versions of everything else that goes with it: the constraints are those of the newest transformers.
$(FLOOR): $(DEV)
	PIP_CONSTRAINT= $(BIN)/python -m pip install --quiet --target $@.partial transformers==$(FLOOR_VERSION)
	rm -rf $@
	mv $@.partial $@

# What pip installs for an isolated build, for the sdist, which pip cannot build.
$(BACKEND): pyproject.toml constraints.txt | $(VENV)/bin/python
	rm -rf $@
	$(BIN)/python -m pip install --quiet --target $@ "setuptools>=77" "pybind11>=2.12"
	touch $@

# Of the installed package only what the site needs besides: nothing is built again.
$(DOCS): $(DEV)
	$(BIN)/python -m pip install "graphmatch[docs]"
	touch $@

$(BENCH): $(DEV)
	$(BIN)/python -m pip install --editable ".[exgra,viz,chat,dev,bench]"
	touch $@

$(CUDA): $(DEV) | gpu
	GRAPHMATCH_CUDA=1 $(BIN)/python -m pip install --no-deps --editable .
	touch $@

# Without a GPU all of its tests would be left out, and none would fail.
.PHONY: gpu
gpu: $(DEV)
	@$(BIN)/python -c 'import torch; raise SystemExit(None if torch.cuda.is_available() else \
		f"PyTorch {torch.__version__} must see a GPU; it sees none. Use a machine with one and a PyTorch built for CUDA.")'

SANITIZE_FLAGS := -std=c++17 -O1 -g -fopenmp-simd -Wall -Wextra -Werror -fno-omit-frame-pointer -fno-sanitize-recover=all -pthread -Icsrc
build/sanitize/address: SANITIZER := address,undefined
build/sanitize/thread: SANITIZER := thread
build/sanitize/address build/sanitize/thread: $(CORE_SOURCES) $(NATIVE_TESTS) $(CPP_FILES)
	mkdir -p $(@D)
	$(CXX) $(SANITIZE_FLAGS) -fsanitize=$(SANITIZER) $(CORE_SOURCES) $(NATIVE_TESTS) -o $@
