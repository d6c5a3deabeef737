# make quickstart   sets everything up and shows transfer learning on handwritten digits
# make test         sets everything up, then format, lint, types and tests
# make ablations    runs the specs of configs/ablations, or goes on with them: make ablations DATA=DIR, into
#                   runs/ablations and results/ablations; DIR holds CIFAR-10 as a folder of tfds, and flowers128.zip
# make accelerator  measures what a GPU or TPU makes of the library, as far as BUDGET seconds go; again: goes on
#
# Both take the newest supported Python that they find. Another one, beside it:
#     make test PYTHON=python3.12 VENV=.venv-3.12
# and a part of the tests, here all but the files that take a minute or more:
#     make test TESTS='-m "not long"'

VERSIONS ?= 3.13 3.12 3.11
VENV ?= .venv
BIN := $(VENV)/bin

# Whether a Python is supported and can make virtual environments.
USABLE := import ensurepip, sys, venv; sys.exit(f"{sys.version_info[0]}.{sys.version_info[1]}" not in "$(VERSIONS)".split())
# The first usable one, on the PATH or installed by pyenv (whose commands on the PATH exist but fail for versions that
# are not switched on).
FIND = for version in $(VERSIONS) 3; do \
	for python in python$$version "$$HOME"/.pyenv/versions/$$version*/bin/python$$version; do \
		if "$$python" -c '$(USABLE)' 2> /dev/null; then echo "$$python"; exit; fi; done; done
PYTHON ?= $(shell $(FIND))

# XLA's CPU programs get their memory anew at every call: in huge pages that is quick (docs/performance.md).
export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1

# Of make accelerator; more options of `python -m benchmarks.accelerator` in ARGS.
BUDGET ?= 540
ARGS ?=

# Of make ablations: the folder of the data, and the specs.
DATA ?=
SPECS ?= $(basename $(notdir $(wildcard configs/ablations/*.py)))

.PHONY: quickstart test ablations accelerator lint format clean python
.DEFAULT_GOAL := quickstart

python:  # says which Python would be taken
	@echo $(PYTHON)

$(BIN)/python:
	@python="$(PYTHON)"; "$${python:-python3}" -c '$(USABLE)' 2> /dev/null || { \
		echo "error: $${python:-python3} is not here, not one of Python $(VERSIONS), or cannot make virtual environments (on Debian: apt install python3-venv); name another: make PYTHON=python3.12"; exit 2; }; \
	"$$python" -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

$(VENV)/installed: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/installed-test: setup.py | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[test]'
	touch $@ $(VENV)/installed

quickstart: $(VENV)/installed
	$(BIN)/python -m experiments.compare --config=configs/quickstart.py --workdir=runs/quickstart

ablations: $(VENV)/installed
	@for spec in $(SPECS); do $(BIN)/python -m benchmarks.shipped_ablations --spec=$$spec --data_dir="$(DATA)" \
		--workdir=runs/ablations/$$spec --out=results/ablations/$$spec.json || exit; done

accelerator: $(VENV)/installed
	$(BIN)/python -m benchmarks.accelerator --budget=$(BUDGET) --out=runs/accelerator --allow_dirty $(ARGS)

test: lint
	$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --timeout=600 $(TESTS)  # seconds of one test

lint: $(VENV)/installed-test
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m ruff check
	$(BIN)/python -m mypy

format: $(VENV)/installed-test
	$(BIN)/python -m ruff format
	$(BIN)/python -m ruff check --fix

clean:
	rm -rf $(VENV)
