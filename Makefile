# Two commands do everything: `make demo` and `make test`. Both make .venv first, from hashed locks.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BENCH := .bench
BIN := $(VENV)/bin
UV := $(BIN)/uv
MONTHS ?= 5
unexport PYTHONDONTWRITEBYTECODE
export DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := true
export GX_ANALYTICS_ENABLED := false

.DEFAULT_GOAL := help
.PHONY: help demo demo-stop demo-clean test lint types format lock bench-imports bench-drift bench-gateway bench-jobs compose-env clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 16

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' \
	  || { echo "Python 3.11 to 3.13 is needed, $(PYTHON) is $$($(PYTHON) --version). Set PYTHON=python3.12, for example."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

# Installs a lock into the environment that the target is in.
define install
	$(UV) pip install --quiet --python $(@D)/bin/python --compile-bytecode --require-hashes -r $(1)
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps --require-hashes -r requirements/datasets.txt
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps --no-build-isolation -e .
	@touch $@
endef

$(VENV)/.runtime: $(UV) requirements/runtime.txt requirements/datasets.txt pyproject.toml
	@echo "Installing the locked packages (once, about two minutes)"
	$(call install,requirements/runtime.txt)

$(VENV)/.dev: $(UV) requirements/dev.txt requirements/datasets.txt pyproject.toml
	@echo "Installing the locked packages with the test tools (once, about two minutes)"
	$(call install,requirements/dev.txt)

$(BENCH)/pyvenv.cfg: $(UV)
	$(UV) venv --quiet --clear --python $(BIN)/python $(BENCH)

$(BENCH)/.done: $(BENCH)/pyvenv.cfg requirements/bench.txt requirements/datasets.txt pyproject.toml
	@echo "Installing the official providers into an environment of their own (once, about three minutes)"
	$(call install,requirements/bench.txt)

demo: $(VENV)/.runtime ## the whole loop on real flights; MONTHS=5 (January and 4 more), FRESH=1 starts afresh
	$(BIN)/python docs/demo run --months $(MONTHS) $(if $(FRESH),--fresh)

demo-stop: $(VENV)/.runtime ## end the demo's servers
	$(BIN)/python docs/demo stop

demo-clean: demo-stop ## end the demo's servers and delete what it made
	rm -rf .demo

test: $(VENV)/.dev lint types ## lint, types and all tests
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --durations 15

lint: $(VENV)/.dev ## style and layers
	$(BIN)/ruff check --no-cache .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(VENV)/.dev ## mypy strict on the package
	$(BIN)/mypy

format: $(VENV)/.dev ## put the code in its form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --no-header
lock: $(UV) ## write the locks anew
	$(LOCK) --all-extras --group build pyproject.toml -o requirements/runtime.txt
	$(LOCK) --all-extras --group dev -c requirements/runtime.txt pyproject.toml -o requirements/dev.txt
	cp requirements/dev.txt requirements/bench.txt # what both need stays the same as far as the official providers allow
	$(LOCK) $(foreach platform,kubernetes sagemaker vertex,--extra $(platform)) --group bench pyproject.toml -o requirements/bench.txt
	$(LOCK) --no-deps requirements/datasets.in -o requirements/datasets.txt

bench-imports: $(VENV)/.dev ## what our imports and templates cost beside Airflow's own
	@$(BIN)/python benchmarks/imports.py

bench-drift: $(VENV)/.dev ## the drift engine beside a plain scan and scipy; ROWS=1000000
	@$(BIN)/python benchmarks/drift.py

bench-jobs: $(BENCH)/.done ## a thousand deferred jobs beside the official operators of Kubernetes, SageMaker and Vertex AI; about twelve minutes
	@$(BENCH)/bin/python -m benchmarks.jobs

bench-gateway: $(VENV)/.dev ## requests and times to answer beside `mlflow models serve`
	@$(BIN)/python benchmarks/gateway.py

compose-env: $(VENV)/.runtime ## write .env with fresh secrets for docker-compose.yaml
	$(BIN)/python docs/demo/secrets_file.py

clean: ## delete caches and the virtual environment
	rm -rf $(VENV) $(BENCH) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis
