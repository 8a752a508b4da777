# `make demo` and `make test` do all their own set-up, in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A strict editable install links each file of the folders, so that type checkers and editors find `tansaku` as Python
# does. A file that is new or gone needs new links: the name of this stamp changes with the list of files.
INSTALL := $(BIN)/python -m pip install --quiet --config-settings editable_mode=strict
LINKED := $(VENV)/.linked-$(shell find onnx_export indexer plugin training -type f ! -path '*/__pycache__/*' | \
	LC_ALL=C sort | cksum | cut -d ' ' -f 1)

.PHONY: demo test lint types format model clean

demo: $(VENV)/.installed $(LINKED)
	$(BIN)/tansaku demo

test: $(VENV)/.installed-dev $(LINKED) lint types
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev $(LINKED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev $(LINKED)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev $(LINKED)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Rebuild the bundle that ships inside: an hour and a quarter of training on two cores, and a quarter of an hour for the
# query weights; DATA is the folder with the corpora (see training/default_model/recipe.py). An interrupted training goes on
# where it was.
WORK := build/model
BUNDLE := onnx_export/default_bundle

model: $(VENV)/.installed-dev $(LINKED)
	$(INSTALL) --editable '.[base-model,evaluate,train]'
	$(BIN)/python -m tansaku.training.default_model data $(WORK) --data $(DATA) --limit 8000
	$(BIN)/python -m tansaku.training.default_model neighbours $(WORK) --blocks 640 160 160
	$(BIN)/python -m tansaku.training.default_model build $(BUNDLE) --data $(DATA) \
		--config training/default_model/default_model.toml --card training/default_model/default_model_card.md \
		--average 184 --average 276 --average 368 --average 460
	$(BIN)/tansaku weigh $(BUNDLE) --queries $(WORK)/jaquad/queries.jsonl --collection $(WORK)/jaquad/corpus.jsonl \
		--qrels $(WORK)/jaquad/qrels.tsv

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "tansaku needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.3"
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable .
	touch $@

$(LINKED): $(VENV)/.installed
	$(INSTALL) --no-deps --editable .
	rm -f $(VENV)/.linked-*
	touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable '.[dev]'
	@# It runs beside newer packages than it asks for; tests/plugin/hosts/test_pylate.py needs no more of it than its indexes.
	$(BIN)/python -m pip install --quiet --no-deps 'pylate>=1.6,<1.7'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
