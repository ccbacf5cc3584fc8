# Headrace. `make` alone lists what can be made.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKS := requirements/server.lock requirements/local.lock requirements/dev.lock
STAMP := $(VENV)/.complete
DOCS_VENV := .venv-docs
# Tests mostly wait, for Kafka and for each other's processes: more of them than cores keep the cores busy.
WORKERS ?= 4
# Compiled modules are kept, whatever the environment says: or every process that a test starts compiles ours anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup run test test-quick test-one test-fault test-batch test-mutations bench docs lint lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make .venv from the lock files (quick when done)

$(STAMP): $(LOCKS) pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Headrace needs Python 3.11 or later; this is %s. Name another: make PYTHON=python3.12" % sys.version.split()[0])'
	@echo "[1/4] virtual environment in $(VENV)"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "[2/4] packages of the server, then of the local stack and the tests (about 400 MB the first time)"
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/server.lock
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/local.lock
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes --no-deps -r requirements/dev.lock
	@echo "[3/4] Headrace itself"
	$(BIN)/python -m pip install --disable-pip-version-check --no-deps --editable .
	@echo "[4/4] done"
	@touch $@

run: setup ## Start the whole stack: broker, model, ingress, streams, dispatcher
	$(BIN)/headrace up $(ARGS)

test: setup ## Every test, against one embedded broker, in WORKERS processes (4)
	$(BIN)/python -m pytest -n $(WORKERS) --durations=30 $(ARGS)

test-quick: setup ## The tests that need no broker: unit and wire
	HEADRACE_TEST_KAFKA=none $(BIN)/python -m pytest -n 2 --durations=10 tests/unit tests/wire $(ARGS)

test-one: setup ## One test, module or folder: NAME=tests/wire/test_docs.py, or a part of a test's name
	@test -n "$(NAME)" || { echo "make test-one NAME=<path, path::test, or a part of a test's name>" >&2; exit 2; }
	$(BIN)/python -m pytest $(if $(findstring /,$(NAME)),'$(NAME)',-k '$(NAME)') $(ARGS)

test-fault: setup ## 300 processes killed, frozen or restarted under load, then an audit; SEED=N repeats one
	$(BIN)/python -m tests.fault.campaign $(if $(SEED),--seed $(SEED)) $(ARGS)

test-batch: setup ## A batch of 50,000 lines while its roles are killed, then an audit; SEED=N repeats one
	$(BIN)/python -m tests.fault.batch_campaign $(if $(SEED),--seed $(SEED)) $(ARGS)

test-mutations: setup ## Take out one protection after the other and see that a test fails each time (not in CI)
	$(BIN)/python -m tests.mutations $(ARGS)

bench: setup ## The figures of the README, measured on this machine
	$(BIN)/python -m bench $(ARGS)

docs: $(DOCS_VENV)/.complete ## The documentation as a site in build/site; broken links are errors
	NO_MKDOCS_2_WARNING=1 $(DOCS_VENV)/bin/mkdocs build

$(DOCS_VENV)/.complete: requirements/docs.lock
	@test -x $(DOCS_VENV)/bin/python || $(PYTHON) -m venv $(DOCS_VENV)
	$(DOCS_VENV)/bin/python -m pip install --disable-pip-version-check --quiet --require-hashes --no-deps -r requirements/docs.lock
	@touch $@

lint: setup ## Style, types and layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: ## Compile the lock files anew (needs uv)
	sh requirements/lock.sh

clean: ## Remove the virtual environment and the local data
	rm -rf $(VENV) $(DOCS_VENV) .headrace build *.egg-info
