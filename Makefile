# The daily commands. A new machine needs Python 3.10 or newer with pip, nothing else:
# the first target that needs .venv makes it.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build
PYTEST_FLAGS ?= -n auto

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := $(BUILD)/demo

.DEFAULT_GOAL := help
.PHONY: help demo test test-lowest coverage lint format format-check types bench wheel clean

help: ## List the targets.
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED) ## Prune a trained digits model and show accuracy before and after.
	@mkdir -p $(DEMO)
	$(BIN)/onnxprune models/digits_cnn.onnx -q 1.0 --val models/digits_test.npz \
		-o $(DEMO)/digits_cnn.pruned.onnx --overwrite

test: $(INSTALLED) ## Run the tests.
	$(BIN)/python -m pytest $(PYTEST_FLAGS)

test-lowest: ## Run the tests with the lowest version of every dependency.
	$(PYTHON) -m venv $(BUILD)/lowest
	$(BUILD)/lowest/bin/python -m pip install --quiet --constraint tests/constraints-lowest.txt \
		--editable '.[test]'
	$(BUILD)/lowest/bin/python -m pytest $(PYTEST_FLAGS)

coverage: $(INSTALLED) ## Run the tests and show what lines and branches they leave out.
	$(BIN)/python -m pip install --quiet --editable '.[coverage]'
	$(BIN)/python -m pytest $(PYTEST_FLAGS) --cov=onnxprune --cov-branch \
		--cov-report=term-missing:skip-covered

lint: $(INSTALLED) ## Look for mistakes and style.
	$(BIN)/ruff check

format: $(INSTALLED) ## Lay out the code.
	$(BIN)/ruff format

format-check: $(INSTALLED) ## Fail where `make format` would change something.
	$(BIN)/ruff format --check

types: $(INSTALLED) ## Check the types.
	$(BIN)/mypy

bench: $(INSTALLED) ## Measure against other tools.
	$(BIN)/python benchmarks/throughput.py

wheel: $(INSTALLED) ## Build the wheel and the source archive into dist/.
	rm -rf dist
	$(BIN)/python -m build

clean: ## Remove what was built; .venv stays.
	rm -rf $(BUILD) dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find onnxprune tests models -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "$(PYTHON) is older than Python 3.10; name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
