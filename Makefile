# One word a task; CI calls the same words. `make help` lists them.
#   VENV    the virtual environment to make and use; reused while requirements do not change
#   PYTHON  the interpreter it is made with
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
PIP_FLAGS ?=
BIN := $(abspath $(VENV))/bin
RUN := $(abspath runs)/demo-$(shell date +%Y%m%d-%H%M%S)
SUBMISSION := $(abspath runs)/submission
# The stamp carries a hash of what was asked for, so that clones share an environment and a change renews it.
STAMP := $(VENV)/.ssd-$(shell cat requirements.txt requirements-dev.txt $(CONSTRAINTS) | sha256sum | cut -c1-16)

.DEFAULT_GOAL := help
.PHONY: help venv demo demo-submission test lint clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

venv: $(STAMP)  ## make the virtual environment and install what runs and tests need

$(STAMP): requirements.txt requirements-dev.txt
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -q -r requirements.txt -r requirements-dev.txt -c $(CONSTRAINTS)
	@rm -f $(VENV)/.ssd-* && touch $@

demo: venv  ## draw a small data set, train a narrow SSD300 on it to mAP 0.23, show the result (CPU, minutes)
	cd base && SSD_DATA_DIR= $(BIN)/python prepare.py --name cpu
	cd base && SSD_DATA_DIR= PYTHON=$(BIN)/python bash run_training.sh --name cpu --config demo --output $(RUN)

demo-submission: venv  ## five demo runs, packaged, held to the official checkers, scored; again: goes on where it stopped
	cd base && SSD_DATA_DIR= $(BIN)/python prepare.py --name cpu
	cd base && SSD_DATA_DIR= $(BIN)/python -m ssd campaign --name cpu --config demo --runs 5 --measure_steps 0 \
		--division open --submitter demo --system demo --folder $(SUBMISSION)
	cd base && if test -d $(SUBMISSION)/package; then $(BIN)/python -m ssd package --check $(SUBMISSION)/package; \
		else $(BIN)/python -m ssd package $(SUBMISSION) --out $(SUBMISSION)/package; fi

test: venv  ## run every test
	PYTHONPATH= $(BIN)/pytest -n 2 $(PYTEST_FLAGS)

lint: venv  ## ruff (format and lint), mypy on base/ssd, shellcheck on every shell file
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x $$(git ls-files '*.sh' '.ci/run' '*.sub')

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
