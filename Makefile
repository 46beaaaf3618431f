# One word a task; CI calls the same words. `make help` lists them.
#   VENV    the virtual environment to make and use; reused while requirements do not change
#   PYTHON  the interpreter it is made with
#   LOCKED=1  install exactly the files of requirements.lock, by their hashes (Python 3.11 or newer)
#   SUBMISSION  folder of demo-submission
#   VENDOR, CONFIG, DATA_DIR  what bench and bench-device measure: a vendor, a config of it, and a COCO folder
#   SEED  the sample of mutants, of chaos or of fuzz, as a run of it printed; by default a new one
#   COUNT  damaged inputs of fuzz: 100,000 by default
#   RACES_PYTHON  the interpreter of test-races, 3.12 or newer: by default the first that is found
#   ONLY  which kernel mutants are run: those whose language, op, kernel, kind or file hold this text; which rows of chaos;
#         which trials of test-slurm;
#         which modules are broken by mutants: those whose path in base/ssd holds it
#   FLOOR  what test-floor installs: constraints-FLOOR.txt. By default floor; cuda-image is NVIDIA's image of today
#   FLOOR_PYTHON  the interpreter of test-floor: by default Python 3.10 (cuda-image: 3.12) where one is found, else PYTHON
SHELL := /bin/bash
VENV ?= .venv
PYTHON ?= python3
CONSTRAINTS ?= constraints.txt
PIP_FLAGS ?=
VENDOR ?= cpu
CONFIG ?= smoke
DATA_DIR ?=
BIN := $(abspath $(VENV))/bin
RUN := $(abspath runs)/demo-$(shell date +%Y%m%d-%H%M%S)
SUBMISSION ?= runs/submission
SUBMISSION_DIR := $(abspath $(SUBMISSION))
# The stamp carries a hash of what was asked for, so that clones share an environment and a change renews it.
ASKED := $(if $(LOCKED),--require-hashes -r requirements.lock,-r requirements.txt -r requirements-dev.txt -c $(CONSTRAINTS))
STAMP := $(VENV)/.ssd-$(shell (echo $(LOCKED); cat $(filter %.txt %.lock /dev/null,$(ASKED))) | sha256sum | cut -c1-16)

.DEFAULT_GOAL := help
.PHONY: help venv lock audit demo demo-submission test test-browser test-floor test-races test-slurm kernel-mutants chaos chaos-full fuzz plan-validation plan-runs lint architecture kernel-table kernel-table-floor roofline bench bench-device same gpu-wheels gpu-day clean

help:  ## list the tasks
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 18

# An environment that clones share holds the command `ssd` of the clone that made it last.
COMMAND := $(VENV)/.command-$(shell (pwd; cat pyproject.toml) | sha256sum | cut -c1-16)

venv: $(COMMAND)  ## make the virtual environment, install what runs and tests need, and the command ssd (in its bin/)

$(COMMAND): $(STAMP)
	$(BIN)/python -m pip install $(PIP_FLAGS) -q --no-deps -e .
	@rm -f $(VENV)/.command-* && touch $@

$(STAMP):
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install $(PIP_FLAGS) -q $(ASKED)
	@rm -f $(VENV)/.ssd-* && touch $@

# The tested versions with the hash of each of their files, and what looks them up in the databases of known faults.
LOCK_BIN := $(abspath $(VENV)-lock)/bin

$(LOCK_BIN)/uv:
	@test -x $(LOCK_BIN)/python || $(PYTHON) -m venv $(VENV)-lock
	$(LOCK_BIN)/python -m pip install $(PIP_FLAGS) -q uv pip-audit

lock: $(LOCK_BIN)/uv  ## write requirements.lock anew from the ranges and constraints.txt: versions and hashes of all files
	$(LOCK_BIN)/uv pip compile -q --universal --generate-hashes --no-annotate --no-header --upgrade --python-version 3.11 \
	  -c constraints.txt requirements.txt requirements-dev.txt -o requirements.lock

audit: $(LOCK_BIN)/uv  ## look the locked versions up among the known vulnerabilities (needs a network)
	$(LOCK_BIN)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock

demo: venv  ## draw a small data set, train a narrow SSD300 on it to mAP 0.23, show the result (CPU, minutes)
	@echo "The demo draws 464 images, and trains a narrow SSD300 on them until mAP 0.23, evaluating after each epoch."
	@echo "That takes about 4 epochs: 2 minutes on two idle cores. The last lines name the run's report.html."
	cd base && SSD_DATA_DIR= $(BIN)/python prepare.py --name cpu
	cd base && SSD_DATA_DIR= PYTHON=$(BIN)/python bash run_training.sh --name cpu --config demo --output $(RUN)

demo-submission: venv  ## five demo runs, packaged, held to the official checkers, scored; again: goes on where it stopped
	cd base && SSD_DATA_DIR= $(BIN)/python prepare.py --name cpu
	cd base && SSD_DATA_DIR= $(BIN)/python -m ssd campaign --name cpu --config demo --runs 5 --measure_steps 0 \
		--division open --submitter demo --system demo --folder $(SUBMISSION_DIR)
	cd base && if test -d $(SUBMISSION_DIR)/package; then $(BIN)/python -m ssd package --check $(SUBMISSION_DIR)/package; \
		else $(BIN)/python -m ssd package $(SUBMISSION_DIR) --out $(SUBMISSION_DIR)/package; fi

test: venv  ## run every test
	PYTHONPATH= $(BIN)/pytest -n 2 $(PYTEST_FLAGS)

test-quick: venv  ## run the tests that are not marked slow: what one runs before a commit (under 90 s)
	PYTHONPATH= $(BIN)/pytest -n 2 -m "not slow" $(PYTEST_FLAGS)

mutants: venv  ## break base/ssd in 60 sampled places; each module's own test file must notice 56 (SEED=N repeats a sample)
	PYTHONPATH= PATH="$(BIN):$$PATH" $(BIN)/python tests/mutants.py --count 60 $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only $(ONLY))

kernel-mutants: venv  ## break every kernel of both languages; print what catches each mutant, and keep the list in docs
	cd base && PYTHONPATH=. $(BIN)/python ../tests/kernel_mutants.py --page $(if $(ONLY),--only "$(ONLY)")

# The floor: an environment beside the default one. pyenv's python3.10 may lead nowhere, so each is asked to run.
FLOOR ?= floor
FLOOR_VENV := $(VENV)-$(FLOOR)
FLOOR_BIN := $(abspath $(FLOOR_VENV))/bin
FLOOR_RELEASE := $(if $(filter floor,$(FLOOR)),3.10,3.12)
FLOOR_PYTHON ?= $(shell for one in python$(FLOOR_RELEASE) $(HOME)/.pyenv/versions/$(FLOOR_RELEASE).*/bin/python $(PYTHON); do \
	$$one -c '' 2>/dev/null && { echo $$one; break; }; done)
FLOOR_STAMP := $(FLOOR_VENV)/.ssd-$(shell cat requirements.txt constraints-$(FLOOR).txt | sha256sum | cut -c1-16)

# torch brings Triton, which vendors' builds may lack: without it the tests that need it skip.
$(FLOOR_STAMP):
	@test -x $(FLOOR_BIN)/python || $(FLOOR_PYTHON) -m venv $(FLOOR_VENV)
	$(FLOOR_BIN)/python -m pip install $(PIP_FLAGS) -q -r requirements.txt -c constraints-$(FLOOR).txt \
	  pytest pytest-timeout pytest-xdist hypothesis nvidia-ml-py
	$(if $(filter floor,$(FLOOR)),$(FLOOR_BIN)/python -m pip uninstall -q -y triton)
	@rm -f $(FLOOR_VENV)/.ssd-* && touch $@

test-floor: $(FLOOR_STAMP)  ## run every test with the oldest torch and libraries, on Python 3.10 where there is one; or FLOOR=cuda-image
	@$(FLOOR_BIN)/python -c "import sys, torch; print('Python', sys.version.split()[0], '- torch', torch.__version__)"
	PYTHONPATH= $(FLOOR_BIN)/pytest -n 2 $(PYTEST_FLAGS)

# The page of a run in headless Chromium; axe-core, which looks for what hinders people, comes from npm's registry.
CHROMIUM ?= $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)
AXE_VERSION := 4.14.1
AXE := $(abspath $(VENV))/axe-$(AXE_VERSION)/package/axe.min.js

$(AXE): $(STAMP)
	mkdir -p $(VENV)/axe-$(AXE_VERSION)
	cd $(VENV)/axe-$(AXE_VERSION) && npm pack --silent axe-core@$(AXE_VERSION) >/dev/null && tar xzf axe-core-$(AXE_VERSION).tgz

test-browser: $(AXE)  ## hold report.html in headless Chromium: console, network, numbers, accessibility (needs chromium and npm)
	@test -n "$(CHROMIUM)" || { echo "test-browser: no chromium on PATH: install it, or name it: make test-browser CHROMIUM=FILE"; exit 7; }
	PYTHONPATH= SSD_CHROMIUM=$(CHROMIUM) SSD_AXE=$(AXE) $(BIN)/pytest tests/report/test_browser.py $(PYTEST_FLAGS)

chaos: venv  ## break small runs by SIGKILL, power loss and errors of the disk, at sampled calls; prints what was lost (15 minutes; needs cc)
	PYTHONPATH= $(BIN)/python tests/chaos/chaos.py --count 24 $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

chaos-full: venv  ## the same at every call (hours)
	PYTHONPATH= $(BIN)/python tests/chaos/chaos.py --full $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

fuzz: venv  ## give every reader 100,000 damaged inputs; prints the faults and keeps their inputs (an hour; SEED=N, ONLY=reader, COUNT=N)
	PYTHONPATH= $(BIN)/python tests/fuzz/fuzz.py $(if $(COUNT),--count $(COUNT)) $(if $(SEED),--seed $(SEED)) $(if $(ONLY),--only "$(ONLY)")

# ttsem asks for Python 3.12 and exact releases of torch and Triton, so it has an environment beside the default one.
RACES := $(VENV)-races
TTSEM := ttsem[triton]==0.1.0
RACES_BIN := $(abspath $(RACES))/bin
RACES_PYTHON ?= $(shell for one in python3.12 python3.13 $(HOME)/.pyenv/versions/3.1[23].*/bin/python $(PYTHON); do \
	$$one -c 'import sys; sys.exit(sys.version_info < (3, 12))' 2>/dev/null && { echo $$one; break; }; done)
RACES_STAMP := $(RACES)/.ssd-$(shell (cat requirements.txt; echo "$(TTSEM)") | sha256sum | cut -c1-16)

$(RACES_STAMP):
	@test -n "$(RACES_PYTHON)" || { echo "no Python 3.12 or newer was found: name one, RACES_PYTHON=PATH"; exit 1; }
	@test -x $(RACES_BIN)/python || $(RACES_PYTHON) -m venv $(RACES)
	$(RACES_BIN)/python -m pip install $(PIP_FLAGS) -q -r requirements.txt "$(TTSEM)"
	@rm -f $(RACES)/.ssd-* && touch $@

test-races: $(RACES_STAMP)  ## look for races in the Triton kernels' IR, on the CPU (an environment of 5 GB; 12 minutes of CPU); writes docs/kernel_races.md
	$(RACES_BIN)/python tests/races.py

test-slurm: venv  ## submit run.sub to a real Slurm of two made-up hosts, and break it; writes docs/slurm.md (as root; slurm-wlm, munge; 10 to 30 minutes)
	PYTHONPATH= $(BIN)/python tests/slurm/trial.py $(if $(ONLY),--only $(ONLY))

plan-validation: venv  ## predict each published system from the other submitters' alone; print the errors
	cd base && $(BIN)/python -m ssd plan --validate

plan-runs: venv  ## measure, then train the demo, ten times: how near `plan --measure` comes; a row in bench/results (an hour)
	cd base && SSD_DATA_DIR= $(BIN)/python prepare.py --name cpu
	OMP_WAIT_POLICY=passive SSD_DATA_DIR= $(BIN)/python bench/plan.py

lint: venv  ## ruff (format and lint), mypy on base/ssd, vendors and bench, shellcheck on shell files, hadolint on Dockerfiles
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/shellcheck -x $$(git ls-files '*.sh' '.ci/run' '*.sub')
	@if test -x $(BIN)/hadolint; then set -x; $(BIN)/hadolint $$(git ls-files '*Dockerfile'); \
	else echo "hadolint has no wheel for $$(uname -m): the Dockerfiles are not linted here"; fi

architecture: venv  ## draw the picture of docs/architecture.md from today's imports
	$(BIN)/python docs/architecture.py

kernel-table: venv  ## compile the Triton kernels for every target, without a GPU, and write docs/kernel_table.md (minutes)
	cd base && TRITON_INTERPRET= $(BIN)/python -m ssd.vendor.triton.matrix --output ../docs/kernel_table.md

roofline: venv  ## estimate a step on an H100 from the kernels generated for it, without a GPU; write docs/nvidia.md's table (minutes)
	TRITON_INTERPRET= $(BIN)/python bench/roofline.py --count

kernel-table-floor: $(FLOOR_STAMP)  ## FLOOR=cuda-image: the same with Triton 3.6 for A100 and H100, beside the default's; write docs/kernel_table_3.6.md
	cd base && TRITON_INTERPRET= $(FLOOR_BIN)/python -m ssd.vendor.triton.matrix sm_80 sm_90 \
	  --beside ../docs/kernel_table.md --output ../docs/kernel_table_3.6.md

bench: venv  ## time the host's side beside its peers: one table with goals; rows go to bench/results (minutes)
	$(BIN)/python bench/table.py $(if $(DATA_DIR),--data_dir $(DATA_DIR))

bench-device: venv  ## time a vendor's kernels and a config's training: VENDOR=V CONFIG=C [DATA_DIR=D]; rows go to bench/results
	$(BIN)/python bench/ops.py --name $(VENDOR)
	$(BIN)/python bench/train.py --name $(VENDOR) --config $(CONFIG) $(if $(DATA_DIR),--data_dir $(DATA_DIR))

same: venv  ## train smoke and tiny by this checkout and by another commit: the same to the bit, or where not: BASE=REV [DATA_DIR=D]
	OMP_NUM_THREADS=1 $(BIN)/python bench/same.py --base $(or $(BASE),$(error BASE=REV: the commit to compare with)) \
		$(if $(DATA_DIR),--data_dir $(DATA_DIR)) $(if $(OUT),--output $(OUT))

gpu-wheels: venv  ## download what gpu-day needs beside torch, for a machine without a network: OUT=DIR [GPU_PYTHON=3.12]; lists sizes
	$(BIN)/python bench/gpu_wheels.py --output $(or $(OUT),$(error OUT=DIR: the folder for the wheels)) --python $(or $(GPU_PYTHON),3.12)

gpu-day: venv  ## what a card's first day runs, in three parts of nine minutes: OUT=DIR [PARTS="1 2 3"] [DATA=FOLDER] [DEVICE=cpu]
	$(BIN)/python bench/gpu_day.py --output $(or $(OUT),$(error OUT=DIR: the folder for rows, page and runs)) \
		$(if $(PARTS),--parts $(PARTS)) $(if $(DATA),--data $(DATA)) $(if $(DEVICE),--device $(DEVICE)) \
		$(if $(filter cpu,$(VENDOR)),,--name $(VENDOR) --config $(CONFIG))

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) $(wildcard $(VENV)-*) .pytest_cache .ruff_cache .mypy_cache .hypothesis
