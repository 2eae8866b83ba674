# Two commands are enough on a fresh machine: `make demo` and `make test`. Each makes .venv by itself.
# PYTHON, TORCH and TORCH_INDEX_URL choose the interpreter and the PyTorch: see scripts/bootstrap.

BIN := .venv/bin
ARGS ?=

# Packages on PYTHONPATH would shadow the pinned ones.
unexport PYTHONPATH
unexport PYTHONHOME

.DEFAULT_GOAL := help
.PHONY: help demo test docs readme lint format types check hooks clean setup-demo setup-dev

help: ## show what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

demo: setup-demo ## train, steer and evaluate a first policy (ARGS="..." goes to `policysmith demo`)
	$(BIN)/policysmith demo $(ARGS)

test: setup-dev ## run the tests (ARGS="-k advantage" goes to pytest)
	$(BIN)/python -m pytest $(ARGS)

docs: setup-dev ## build the documentation site into site/ and follow its links
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

readme: setup-dev ## write the catalogue into README.md
	$(BIN)/python scripts/readme.py

lint: setup-dev ## check style, formatting and that no layer imports upwards
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

format: setup-dev ## rewrite the files as the formatter wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: setup-dev ## check the types
	$(BIN)/pyright --pythonpath $(BIN)/python

check: lint types test docs ## all that a change has to pass

hooks: setup-dev ## run the quick checks at every git commit from now on
	$(BIN)/pre-commit install

clean: ## remove .venv and every cache (runs are kept)
	rm -rf .venv build dist site .pytest_cache .ruff_cache .hypothesis .import_linter_cache src/*.egg-info
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

setup-demo:
	@scripts/bootstrap demo

setup-dev:
	@scripts/bootstrap dev
