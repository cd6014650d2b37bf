# `make compress` shrinks the model of CONFIG, `make test` proves the pipeline. Both set up .venv first, once.
# make turns every failure into exit code 2; CI calls `shrink` itself to tell them apart.

PYTHON ?= python3
CONFIG ?= configs/digits/compress.yaml
# An index for torch alone: on Linux the plain one brings gigabytes of CUDA; see the README.
TORCH_INDEX ?=

# A process for each core, and a file each at a time, the slowest first.
PARALLEL := --numprocesses auto --dist loadfile --no-loadscope-reorder

BIN := .venv/bin
READY := .venv/ready

.PHONY: compress test test-slow lint ui
compress: $(READY)
	$(BIN)/shrink run $(CONFIG)

test: $(READY)
	$(BIN)/pytest $(PARALLEL)

test-slow: $(READY)
	$(BIN)/pytest $(PARALLEL) -m slow

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

ui: $(READY)
	@echo 'http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=shrinkline'
	$(BIN)/mlflow ui --backend-store-uri sqlite:///runs/mlflow.db

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX)) torch==2.13.0
	$(BIN)/pip install -c constraints.txt -e '.[dev]'
	touch $@
