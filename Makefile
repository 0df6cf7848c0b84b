# Two commands do everything: `make demo` and `make test`. Both make .venv first, the same way `make install` does.

PYTHON ?= python3.11
BIN := .venv/bin
LOCK := deploy/locks/cpu.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# Every process of a job imports the same modules: without bytecode on disk each would compile them anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo demo-tiny pipeline constitution install test test-fast test-long check format bench clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

demo: .venv/installed ## train SmolLM2-135M towards positive film reviews, on this machine's CPU, in minutes
	$(BIN)/rlhf models add smollm2-135m
	$(BIN)/rlhf run positive-reviews

demo-tiny: .venv/installed ## the same job on a generated 350k-parameter model, in seconds to a minute
	$(BIN)/rlhf models add word-world
	$(BIN)/rlhf run word-world

pipeline: .venv/installed ## from random weights to an aligned model, three ways, three seeds, on this machine's CPU
	$(BIN)/rlhf models add word-world-base
	$(BIN)/rlhf pipeline run word-world --at-once 3
	$(BIN)/rlhf pipeline report word-world

constitution: .venv/installed ## critique -> revise -> SFT, and AI labels -> DPO, in the same small world
	$(BIN)/rlhf models add word-world-base
	$(BIN)/rlhf pipeline run word-world-constitution --at-once 3
	$(BIN)/rlhf pipeline report word-world-constitution

install: .venv/installed ## make .venv with everything in it

test: .venv/installed ## run the tests, two files at a time: most of them wait for processes to come and go
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

test-fast: .venv/installed ## run the tests that take seconds
	$(BIN)/python -m pytest -m "not slow and not long"

test-long: .venv/installed ## run what `make test` leaves out: minutes each, on ground that shorter tests cover too
	$(BIN)/python -m pytest -m long

check: .venv/installed ## format, lint, types, import layers, dead code, dependencies
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/ty check rlhf_cluster
	$(BIN)/lint-imports
	$(BIN)/vulture
	$(BIN)/deptry .

format: .venv/installed ## format and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: .venv/installed .venv-trl/installed ## print the tables of benchmarks/ and write their JSON; three quarters of an hour
	$(BIN)/rlhf models add smollm2-135m
	$(BIN)/python benchmarks/all.py --trl-python .venv-trl/bin/python

clean: ## remove .venv and what runs have left
	rm -rf .venv .venv-trl runs benchmarks/results

# The lock is complete, so nothing is resolved here. vLLM's CPU build asks for torchvision, torchaudio and torchcodec,
# which exist on PyPI only as CUDA builds and break transformers beside a CPU torch; the lock leaves them out. Where pip
# finds torch as a CUDA build too, that one asks for libraries that the lock has not: they come with the second line.
# pip compiles on one core; the last line does it on all, and some packages hold files that are not for this Python.
.venv/installed: $(LOCK) pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --no-compile --no-deps --requirement $(LOCK)
	$(BIN)/python -c "import torch" 2>/dev/null || $(BIN)/pip install --quiet --constraint $(LOCK) torch==2.13.0
	$(BIN)/pip install --quiet --no-deps --editable .
	$(BIN)/python -m compileall -q -j 0 .venv/lib rlhf_cluster >/dev/null || true
	touch $@

# The peer that the benchmarks compare with, in an environment of its own.
.venv-trl/installed:
	$(PYTHON) -m venv .venv-trl
	.venv-trl/bin/pip install --quiet torch==2.13.0
	.venv-trl/bin/pip install --quiet trl==1.16.0 psutil
	touch $@
