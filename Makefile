# make help lists the targets. PYTHON chooses the interpreter of the environment: make venv PYTHON=python3.13

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PY := $(BIN)/python
READY := $(VENV)/.ready
PEERS := $(VENV)/.peers
JOBS ?= 2
FUZZ_ROUNDS ?= 10
FUZZ_FILES ?= 20000
FAULT_ROUNDS ?= 3

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help venv demo cluster-demo test lint format bench docs fuzz faults clean

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# silero-vad, lpips and basic-pitch are installed for the models in them, real checkpoints for the tests, without what they need
# to run.
venv: $(READY) ## set up .venv with all that development needs

$(READY): pyproject.toml .ci/constraints.txt
	$(PYTHON) -m venv --clear $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c .ci/constraints.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps silero-vad lpips basic-pitch -c .ci/constraints.txt
	@touch $@

demo: $(READY) ## make a small pair of models in demo/ and compare it
	@$(PY) examples/demo_pair.py demo
	@echo "Compiling the kernels, once per installation:"
	@$(BIN)/diffai warmup
	@echo
	@$(BIN)/diffai demo/base demo/finetuned --output text || [ $$? -eq 1 ]
	@echo
	@echo "Try next, after: source $(BIN)/activate"
	@echo "  diffai demo/base demo/finetuned --stats --output ndjson | head -2"
	@echo "  diffai demo/base demo/finetuned --include '*.7.*' --sort-by-change-magnitude"
	@echo "  diffai inspect demo/base"
	@echo "  diffai analyses"

# Processes that compile the same kernel at once can break its cache (numba #4807): compile before they start.
cluster-demo: $(READY) ## the same pair through a dask scheduler and three workers on this machine
	@$(PY) examples/demo_pair.py demo
	@$(BIN)/diffai warmup
	@$(PY) examples/cluster_demo.py demo/base demo/finetuned

test: $(READY) ## run the tests
	@$(BIN)/diffai warmup
	$(PY) -m pytest -n $(JOBS)

lint: $(READY) ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## put the code into its format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(PEERS): $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check torch -c .ci/constraints.txt
	@touch $@

bench: $(PEERS) ## measure the figures of bench/README.md and fill its table (28 GB of disk)
	$(PY) bench/run.py --write

docs: $(READY) ## write the generated reference pages again
	$(PY) docs/generate.py

fuzz: $(READY) ## examine FUZZ_FILES mutated files of all formats, then run the property tests with new seeds
	$(PY) -m tests.fuzz --count $(FUZZ_FILES)
	for round in $$(seq $(FUZZ_ROUNDS)); do $(PY) -m pytest -n $(JOBS) -m hypothesis --hypothesis-seed=random || exit; done

faults: $(READY) ## try every fault FAULT_ROUNDS times on large pairs: kills, full disks, changed inputs (7 to 23 GB of disk)
	@$(BIN)/diffai warmup
	$(PY) -m tests.faults --rounds $(FAULT_ROUNDS)

clean: ## remove all that was made
	rm -rf $(VENV) demo build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
