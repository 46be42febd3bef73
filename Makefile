.DEFAULT_GOAL := help
.PHONY: help study test lint ui

PYTHON ?= python3
JOBS ?= 2
OUTPUTS ?= outputs
BIN := .venv/bin
INSTALL = $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check -c constraints/cpu.txt

help: ## what can be made
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-8s %s\n", $$1, $$2}'

study: .venv/.runtime ## PPO against GRPO on the embedded task, six runs and the report (JOBS=2 side by side)
	$(BIN)/python -m alignbench sweeps=ppo_vs_grpo output_dir=$(OUTPUTS) hydra.launcher.n_jobs=$(JOBS)

test: .venv/.dev ## all tests (ARGS="-k ppo" for some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

lint: .venv/.dev ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: .venv/.runtime ## MLflow on 127.0.0.1:5000, with a prepared dashboard
	@test -f $(OUTPUTS)/mlflow.db || { echo "$(OUTPUTS)/mlflow.db is not there yet: run a study first (make study)"; exit 2; }
	@echo "MLflow on http://127.0.0.1:5000 in about ten seconds, until Ctrl-C. Charts and report of each study:"
	@$(BIN)/python -c "from alignbench.store.tracker import dashboards; \
	  print(*dashboards('sqlite:///$(OUTPUTS)/mlflow.db', 'http://127.0.0.1:5000'), sep='\n', flush=True)"
	@MLFLOW_DISABLE_TELEMETRY=true DO_NOT_TRACK=1 MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false $(BIN)/python -m mlflow server \
	  --backend-store-uri sqlite:///$(OUTPUTS)/mlflow.db --host 127.0.0.1 --port 5000 --workers 1

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.runtime: pyproject.toml constraints/cpu.txt | .venv/bin/python
	@echo "Installing the pinned packages into .venv (a minute or two) ..."
	$(INSTALL) -e .
	@touch $@

.venv/.dev: pyproject.toml constraints/cpu.txt | .venv/bin/python
	@echo "Installing the pinned packages and tools into .venv (a minute or two) ..."
	$(INSTALL) -e ".[dev]"
	@touch .venv/.runtime $@
