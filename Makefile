PYTHON ?= python3
VENV ?= .venv
RUN := $(VENV)/bin/python -m

.DEFAULT_GOAL := help
.PHONY: help quickstart test lint types clean

help:  ## this list
	@echo "make TARGET [PYTHON=$(PYTHON)] [VENV=$(VENV)]"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-12s%s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

quickstart: $(VENV)/installed  ## fine-tune a packaged model on packaged data
	$(RUN) finetune --config=configs/quickstart.py --workdir=runs/quickstart

test: $(VENV)/installed  ## run the test suite
	$(RUN) pytest -n 2 --dist=loadfile --no-loadscope-reorder $(TESTS)

lint: $(VENV)/installed  ## check style and formatting
	$(RUN) ruff check .
	$(RUN) ruff format --check .

types: $(VENV)/installed  ## check type hints
	$(RUN) mypy

clean:  ## remove the virtual environment and caches; runs/ stays
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find configs finetune tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/installed: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "error: $(PYTHON) is not Python >= 3.11; name one: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@
