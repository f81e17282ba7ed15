# Set-up and the main commands. `make help` prints the lines marked with two hashes.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := results/demo
SMOKE := results/smoke
# The exact versions, and not a range: then pip takes torch's CPU build where that is what the index offers.
# Nothing is compiled ahead: Python compiles what it imports, which is a small part.
INSTALL := $(BIN)/python -m pip install --no-compile --disable-pip-version-check --progress-bar off \
           -c constraints.txt torch==2.13.0 torchvision==0.28.0
SETUP_FILES := pyproject.toml constraints.txt scripts/repair_torchvision.py

# One thread for each process: on few cores, idle OpenMP threads that spin cost far more than they bring.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
export PIP_ROOT_USER_ACTION := ignore

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help install demo test slow lint lint-style lint-imports lint-types report docs smoke bench clean

help:  ## print this help
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-9s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

install: $(VENV)/suite.stamp  ## create .venv and install the library and the suite into it

demo: $(VENV)/suite.stamp  ## baseline and scaffold at four ranks and three seeds on handwritten digits; about a minute
	$(BIN)/python run.py model=mlp data=digits rank=8 seed=42 artifact=true force=true paths.results=$(DEMO)
	$(BIN)/python run.py -m model=mlp data=digits mode=baseline,scaffold rank=1,2,4,8 seed=42,43,44 paths.results=$(DEMO)
	$(BIN)/python -m lottalora report --results $(DEMO)
	@rm -f $(DEMO)/network.html
	$(BIN)/python -m lottalora page "$$(ls -t $(DEMO)/artifacts/*.safetensors | head -n 1)" --out $(DEMO)/network.html

# Two workers, a file of tests on one of them: tests that share a fixture, and all of Slurm, stay together.
# tests/conftest.py says which files begin first.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

test: $(VENV)/test.stamp  ## run the tests, but for the slow ones
	$(PYTEST) -m "not slow"

# These wait more than they compute, so there are three.
slow: $(VENV)/test.stamp  ## run the slow tests
	$(PYTEST) -n 3 -m slow $$(grep -rl 'mark\.slow' tests --include='*.py')

lint: lint-style lint-imports lint-types  ## check style, formatting, imports and the types of the library

lint-style: $(VENV)/test.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lint-imports: $(VENV)/test.stamp
	PYTHONPATH=src $(BIN)/lint-imports --no-cache

lint-types: $(VENV)/test.stamp
	$(BIN)/python -m mypy

report: $(VENV)/suite.stamp  ## make tables and figures from results/rows
	$(BIN)/python -m lottalora report

docs: $(VENV)/docs.stamp  ## bring the numbers of README and docs up to date, and build the site into site/
	$(BIN)/python -m lottalora report --docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

smoke: $(VENV)/suite.stamp  ## one epoch of four modes on made data of MNIST's form, in seconds
	$(BIN)/python run.py -m model=mlp model.size=tiny data=mnist data.sample=true trainer.epochs=1 \
	    mode=baseline,scaffold,zero,head paths.results=$(SMOKE)

bench: $(VENV)/test.stamp  ## time layers, training steps, the loop and the weight generator; writes docs/speed.md
	$(BIN)/python -m benchmarks

clean:  ## remove .venv and what the demo and the smoke run wrote
	rm -rf $(VENV) $(DEMO) $(SMOKE) outputs multirun site

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "The suite needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1)." \
	         "Name another one: make PYTHON=python3.11 ..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot create virtual environments. On Debian: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# A stamp is newer than the files that decide what is installed, so a second run installs nothing.
$(VENV)/suite.stamp: $(SETUP_FILES) | $(BIN)/python
	$(INSTALL) -e '.[suite]'
	$(BIN)/python scripts/repair_torchvision.py
	@touch $@

$(VENV)/test.stamp: $(SETUP_FILES) | $(BIN)/python
	$(INSTALL) -e '.[suite,slurm,dashboard,docs,test]'
	$(BIN)/python scripts/repair_torchvision.py
	@touch $(VENV)/suite.stamp $(VENV)/docs.stamp $@

$(VENV)/docs.stamp: $(SETUP_FILES) | $(BIN)/python
	$(INSTALL) -e '.[suite,docs]'
	$(BIN)/python scripts/repair_torchvision.py
	@touch $(VENV)/suite.stamp $@
