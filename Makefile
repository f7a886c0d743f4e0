# Everything here works from a bare clone; `make help` lists the targets.

SHELL := /bin/sh
PY := .venv/bin/python

# Most of a test's time is spent waiting for real programs: more of them run side by side than there are cores. Each file
# stays in one process, one after the other. ARGS="-n 0" runs everything in one.
SIDE_BY_SIDE := -n 3 --dist loadfile

# Tests start hundreds of processes: where this is set, each would compile every module again, for two seconds.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev demo test test-browser check format bench lock clean
.NOTPARALLEL:

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

setup: ## Make .venv with the locked packages (PYTHON=… chooses the interpreter)
	@PYTHON="$(PYTHON)" sh tools/setup.sh run
	@$(PY) tools/browser.py run

setup-dev:
	@PYTHON="$(PYTHON)" sh tools/setup.sh dev
	@$(PY) tools/browser.py dev

demo: setup ## Run broker, gateway, platform and 277 communities (ONCE=1, SPEED=60, SEED=…, AGENTS=20); Ctrl-C stops
	@exec $(PY) -m simulators demo $(if $(filter-out 0,$(ONCE)),--once) $(if $(SPEED),--speed "$(SPEED)") $(if $(SEED),--seed "$(SEED)") $(if $(AGENTS),--agents "$(AGENTS)")

test: setup-dev ## Run all tests, on real servers (ARGS=… goes to pytest)
	@sh tools/servers.sh
	@$(PY) tools/browser.py dev
	@exec $(PY) -m pytest $(SIDE_BY_SIDE) $(ARGS)

test-browser: setup-dev ## Run the tests that walk the console with Chromium
	@sh tools/servers.sh
	@$(PY) tools/browser.py dev
	@exec $(PY) -m pytest $(SIDE_BY_SIDE) tests/browser $(ARGS)

check: setup-dev ## Check format, lint, types, imports, profiles and rules
	$(PY) -m ruff format --check --quiet gateway edge simulators tests tools
	$(PY) -m ruff check --quiet gateway edge simulators tests tools
	$(PY) -m mypy
	$(PY) .venv/bin/lint-imports --no-logo
	$(PY) -m gateway check
	$(PY) -m gateway test-rules

format: setup-dev ## Format the code and sort its imports
	$(PY) -m ruff check --quiet --select I --fix gateway edge simulators tests tools
	$(PY) -m ruff format gateway edge simulators tests tools

bench: setup-dev ## Measure engine and pipeline on this machine (ARGS=… chooses, e.g. ARGS="engine --json")
	@sh tools/servers.sh
ifdef ARGS
	@exec $(PY) -m tests.bench $(ARGS)
else
	@$(PY) -m tests.bench engine --json
	@$(PY) -m tests.bench pipeline --mode single --json
	@$(PY) -m tests.bench pipeline --mode pack --json
endif

lock: ## Renew the locked versions and hashes from the .in files
	@PYTHON="$(or $(PYTHON),python3)" sh tools/lock.sh

clean: ## Remove .venv and what tools left behind
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find gateway edge simulators tests -name __pycache__ -type d -prune -exec rm -rf {} +
