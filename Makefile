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

# Without the extra `optimum`, which holds transformers at 4.57, the core runs with transformers 5 too: in an environment
# beside the first that shares its files. Its versions stand in constraints.txt.
BIN5 := .venv-transformers5/bin
READY5 := .venv-transformers5/ready
TEXTS := tests/pipeline/tasks/huggingface tests/pipeline/forms/text tests/pipeline/build/syntax/test_declared.py \
  tests/stages/kd/inspection tests/stages/kd/terms/test_attention.py tests/stages/prune/test_vocabulary_subwords.py \
  tests/stages/distill/test_sequence.py tests/test_config_tasks.py

.PHONY: compress test test-slow test-matrix test-transformers5 lint ui
compress: $(READY)
	$(BIN)/shrink run $(CONFIG)

test: $(READY)
	$(BIN)/pytest $(PARALLEL)

test-slow: $(READY)
	$(BIN)/pytest $(PARALLEL) -m slow

# All chains of stages on all networks, and all strategies of configs; CI has those in which the others are parts.
test-matrix: $(READY)
	$(BIN)/pytest $(PARALLEL) -m matrix

test-transformers5: $(READY5)
	$(BIN5)/python -m pytest $(PARALLEL) -m 'not slow and not matrix and not optimum' $(TEXTS)

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
	$(BIN)/pip install -c constraints.txt -e '.[dev,optimum]'
	touch $@

$(READY5): $(READY)
	rm -rf $(@D)
	cp -Rl .venv $(@D)
	rm $@
	$(BIN5)/python -m pip uninstall -y optimum optimum-onnx
	$(BIN5)/python -m pip install --no-build-isolation -e . $$(sed -n 's/^# transformers 5: //p' constraints.txt)
	$(BIN5)/python -m pip check
	touch $@
