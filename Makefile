# make quickstart   sets everything up and shows transfer learning on handwritten digits
# make test         sets everything up, then format, lint, types and tests

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: quickstart test lint format clean
.DEFAULT_GOAL := quickstart

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: $(PYTHON) is not here or older than 3.11; name another: make PYTHON=python3.12"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 2; }

$(VENV)/installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/installed

quickstart: $(VENV)/installed
	$(BIN)/python -m experiments.compare --config=configs/quickstart.py --workdir=runs/quickstart

test: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile

lint: $(VENV)/installed-test
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy

format: $(VENV)/installed-test
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

clean:
	rm -rf $(VENV)
