.DEFAULT_GOAL := help
.PHONY: help study train-sft train-grpo evaluate test lint docs ui build run

PYTHON ?= python3
JOBS ?= 2
OUTPUTS ?= outputs
STUDY ?= pipeline
DEVICE ?= cpu
BIN := .venv/bin
export PYTHONDONTWRITEBYTECODE :=# what is installed is compiled once, when it is first imported, and not at every start
INSTALL = $(BIN)/python -m pip install -qq --no-compile --disable-pip-version-check $(if $(CUDA),,-c constraints/cpu.txt)
CUDA := $(filter cuda,$(DEVICE))

ENGINE ?= docker
IMAGE ?= alignbench-$(DEVICE)
BASE ?= $(if $(CUDA),nvidia/cuda:12.8.1-runtime-ubuntu24.04,python:3.11-slim)

# What a report may set side by side although the first run has no reinforcement learning in it.
ONE_RUN = $(BIN)/python -m alignbench study=$(STUDY) output_dir=$(OUTPUTS) 'analysis.allow=[rl.steps,ledger.*]'

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-10s %s\n", $$1, $$2}'

study: .venv/.runtime ## PPO against GRPO on the built-in task, six runs and the report (JOBS=2 side by side)
	$(BIN)/python -m alignbench sweeps=ppo_vs_grpo output_dir=$(OUTPUTS) hydra.launcher.n_jobs=$(JOBS)

train-sft: .venv/.runtime ## SFT alone, and how good it is (WORDS="preset=phi3_math" for another system)
	$(ONE_RUN) $(WORDS) names.method=sft rl.steps=0

train-grpo: .venv/.runtime ## reinforcement learning from that SFT model; the same WORDS, or algo=ppo among them
	$(ONE_RUN) $(WORDS)

evaluate: .venv/.runtime ## the report on what was trained: SFT, and each method after it
	$(BIN)/python -m alignbench report study=$(STUDY) output_dir=$(OUTPUTS) baseline=sft

test: .venv/.dev ## all tests (ARGS="-k ppo" for some)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto $(ARGS)

lint: .venv/.dev ## style, types and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/.docs ## the documentation, warnings as errors; starts at docs/_build/html/index.html
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -b html -W --keep-going -q docs docs/_build/html

ui: .venv/.runtime ## MLflow on 127.0.0.1:5000, with a prepared dashboard
	$(BIN)/python -m alignbench ui output_dir=$(OUTPUTS)

build: ## an image to run in (DEVICE=cuda for a GPU, ENGINE=podman for another engine)
	$(ENGINE) build --build-arg BASE=$(BASE) --build-arg DEVICE=$(DEVICE) -t $(IMAGE) .

run: ## a shell in it (DO="make train-sft" for a command)
	$(ENGINE) run --rm -it $(if $(CUDA),--gpus all) -v $(abspath $(OUTPUTS)):/alignbench/outputs $(IMAGE) $(or $(DO),bash)

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.runtime: pyproject.toml constraints/cpu.txt | .venv/bin/python
	@echo "Installing the pinned packages into .venv (a minute or two) ..."
	$(INSTALL) -e $(if $(CUDA),".[quant]",.)
	@touch $@

.venv/.dev: pyproject.toml constraints/cpu.txt | .venv/bin/python
	@echo "Installing the pinned packages and tools into .venv (a minute or two) ..."
	$(INSTALL) -e ".[dev]"
	@touch .venv/.runtime $@

.venv/.docs: pyproject.toml constraints/cpu.txt | .venv/bin/python
	@echo "Installing the pinned packages and Sphinx into .venv (a minute or two) ..."
	$(INSTALL) -e ".[docs]"
	@touch .venv/.runtime $@
