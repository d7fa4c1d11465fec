# The two commands of the README are `make demo` and `make test`; everything else is for people who change the code.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
N ?= 500
RUNS ?= 10
SEEDS ?= 1
ROLLOUTS ?= 20
SCENARIOS ?= healthy broken rollouts
TICK ?= 15
JSON ?=
CONTEXT ?=
UPGRADE ?=
UNIT := not e2e and not nginx and not prometheus and not slow
FAST := $(UNIT) and not thorough
# What chance chooses (examples, the order of unit tests) is the same in every run of `make test`: a red one is this change's.
# Another SEED looks elsewhere, and test-fast always does.
SEED ?= 1
CHANCE := --randomly-seed=$(SEED) --hypothesis-seed=$(SEED)
# Processes and parts in real time, on a machine that may stand still for seconds: what fails is asked once more, three of a
# run at most, and what it said the first time is printed.
AGAIN := --reruns 1 --max-suite-reruns 3 --rerun-show-tracebacks

.PHONY: help demo test test-fast test-unit test-e2e lint format crds docs lock bench bench-dataplane bench-scale bench-sampler bench-analysis coverage clean venv

help: ## What can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'

venv: $(STAMP) ## The virtual environment with the locked packages

$(STAMP): pyproject.toml requirements-dev.lock
	@echo "installing the locked packages into $(VENV) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $(STAMP)

demo: $(STAMP) ## A good and a bad release on real parts, on this machine (CONTEXT=name: on a cluster of yours)
	@$(BIN)/python -m canary_rollout.local.demo $(if $(CONTEXT),--context $(CONTEXT))

test: lint test-unit test-e2e coverage ## Everything: checks, unit and property tests, end-to-end stories, coverage

test-fast: $(STAMP) ## Unit, property and shell tests without real services and without the thorough ones: under a minute
	@env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest -q -n 2 --hypothesis-profile quick -m "$(FAST)"

test-unit: $(STAMP)
	@rm -f .coverage .coverage.*
	@$(BIN)/python -m pytest -q -n 2 $(AGAIN) $(CHANCE) --cov --cov-report= -m "$(UNIT)"

# Real parts share a cluster and stay in the order they are written in (ORDER= shuffles them too).
ORDER ?= --randomly-dont-reorganize

test-e2e: $(STAMP)
	@$(BIN)/python -m canary_rollout.local fetch
	@$(BIN)/python -m pytest -q $(AGAIN) $(CHANCE) $(ORDER) --cov --cov-append --cov-report= -m "not ($(UNIT))"

coverage: $(STAMP) ## Branch coverage of the last test run: pure rooms >= 95 %, all >= 85 %
	@$(BIN)/python -m coverage combine --quiet --append 2>/dev/null || true
	@echo "pure rooms:"
	@$(BIN)/python -m coverage report --include='*/canary_rollout/model/*,*/canary_rollout/analysis/*,*/canary_rollout/engine/*' --fail-under=95 | tail -n 3
	@echo "everything:"
	@$(BIN)/python -m coverage report --fail-under=85 | tail -n 3

lint: $(STAMP) ## ruff, mypy strict, import contracts, generated files
	@$(BIN)/ruff check operator tests bench
	@$(BIN)/ruff format --check --quiet operator tests bench
	@$(BIN)/mypy operator
	@$(BIN)/lint-imports --no-cache > /dev/null || $(BIN)/lint-imports --no-cache
	@$(BIN)/python -m canary_rollout.model.crd --check
	@$(BIN)/python -m canary_rollout.model.docs --check
	@$(BIN)/python helm/sync.py --check

format: $(STAMP) ## Mend what ruff can mend
	@$(BIN)/ruff check --fix-only --quiet operator tests bench
	@$(BIN)/ruff format --quiet operator tests bench

crds: $(STAMP) ## Generate the CRD, its copy in the chart and its reference page from the models
	@$(BIN)/python -m canary_rollout.model.crd --write
	@$(BIN)/python -m canary_rollout.model.docs --write
	@$(BIN)/python helm/sync.py

docs: crds ## The same: the reference page is generated with the CRD

LOCK := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock: ## Lock the versions again, with hashes and without addresses (UPGRADE=--upgrade: to the newest)
	@$(LOCK) $(UPGRADE) pyproject.toml -o requirements.lock
	@$(LOCK) $(UPGRADE) pyproject.toml --extra dev -c requirements.lock -o requirements-dev.lock
	@$(LOCK) $(UPGRADE) docker/requirements-agent.in -c requirements-dev.lock -o docker/requirements-agent.lock
	@$(LOCK) $(UPGRADE) docker/requirements-build.in -o docker/requirements-build.lock

bench: $(STAMP) ## Fault visible in Prometheus -> last request on the canary, through real nginx (RUNS=10)
	@$(BIN)/python bench/rollback.py --runs $(RUNS)

bench-dataplane: $(STAMP) ## Weights on every data plane that is here: split, failed requests, dead canary, how fast
	@$(BIN)/python bench/dataplane.py --json bench/results/dataplane.json

bench-scale: $(STAMP) ## N rollouts on the real API server: CPU, memory, API calls, queries, lateness (N=500 MINUTES=10 PLAIN=1)
	@$(BIN)/python bench/scale.py --rollouts $(N) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(PLAIN),--plain)

bench-analysis: $(STAMP) ## False rollbacks and time to detect, beside the peers' rules (SEEDS="1 2" ROLLOUTS=20 SCENARIOS="healthy broken" JSON=file)
	@$(BIN)/python bench/analysis.py --seeds $(SEEDS) --rollouts $(ROLLOUTS) --scenarios $(SCENARIOS) --tick $(TICK) $(if $(JSON),--json $(JSON))

bench-sampler: $(STAMP) ## Queries per tick and CPU per check of the sampler alone
	@$(BIN)/python bench/sampler.py

clean: ## Remove what was built here (the binaries in the user's cache directory stay)
	@rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache dist build bench/results
