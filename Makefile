# `make demo` and `make test` do all their own set-up, in .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A strict editable install links each file of the folders, so that type checkers and editors find `tansaku` as Python
# does. A file that is new or gone needs new links: the name of this stamp changes with the list of files.
INSTALL := $(BIN)/python -m pip install --quiet --config-settings editable_mode=strict
LINKED := $(VENV)/.linked-$(shell find onnx_export indexer plugin training -type f ! -path '*/__pycache__/*' | \
	LC_ALL=C sort | cksum | cut -d ' ' -f 1)

# Tests run in as many processes as there are cores, or in one if ARGS chooses some: make test ARGS="tests/indexer -k codec".
ARGS ?=
PYTEST := $(BIN)/python -m pytest
PARALLEL := -n auto --dist loadfile
DEV := $(VENV)/.installed-dev $(LINKED)

.PHONY: demo quick quick-tests test all-but-slow test-all browser lint types format docs prose dist deploy-check hooks model clean

demo: $(VENV)/.installed $(LINKED)
	$(BIN)/tansaku demo

# While you work: lint, types and what is quick of the tests. The markers are explained in pyproject.toml. The types are
# checked by one process, so the tests run at the same time, here and in `make test`.
quick: $(DEV) lint
	$(MAKE) --jobs 2 types quick-tests

quick-tests: $(DEV)
	$(PYTEST) $(PARALLEL) -m 'not slow and not integration and not engine' $(ARGS)

# Before you hand in: all but the slowest tests; with ARGS, those tests alone.
ifeq ($(ARGS),)
test: $(DEV) lint
	$(MAKE) --jobs 2 types all-but-slow

all-but-slow: $(DEV)
	$(PYTEST) $(PARALLEL) -m 'not slow'
else
test: $(DEV)
	$(PYTEST) $(ARGS)
endif

# Every test, and which lines they reach.
test-all: $(DEV) lint types
	$(PYTEST) $(PARALLEL) --durations=30 --cov --cov-report=term:skip-covered $(ARGS)

# The page at `/` in Chromium, which must be there (Debian: apt-get install chromium fonts-vlgothic). Nothing is downloaded.
browser: $(DEV)
	$(INSTALL) 'axe-playwright-python>=0.1.7,<0.2' 'playwright>=1.58,<2'
	$(PYTEST) -m browser $(ARGS)

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(DEV)
	$(BIN)/pyright --pythonpath $(BIN)/python

format: $(DEV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# What is uploaded to PyPI: a wheel and an sdist in dist/. tests/house/test_release.py looks at both.
dist: $(VENV)/.installed-dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist .
	$(BIN)/twine check --strict dist/*

# The Dockerfile, the compose file, the workflow and the issue forms, against their schemas; nothing is built or fetched.
deploy-check: $(VENV)/.installed-dev
	$(BIN)/hadolint Dockerfile docs/examples/ray/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-issue-forms .github/ISSUE_TEMPLATE/[bw]*.yml

# Lint before each commit.
hooks: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

# The site, in build/site: `python -m http.server -d build/site` shows it. Nothing is fetched, and a warning is an error.
docs: $(VENV)/.installed-dev $(LINKED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --config-file docs/site/mkdocs.yml

# Spelling and plain words of what people read; textlint comes from npm, its versions from the lock file.
prose: $(VENV)/.installed-dev $(LINKED)
	docs/textlint/check $(BIN)

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
		--config training/default_model/default_model.toml --card $(BUNDLE)/README.md \
		--average 184 --average 276 --average 368 --average 460
	$(BIN)/python -m tansaku.training.default_model variants onnx_export/convert/variants_1.tsv
	$(BIN)/python -m tansaku.training.default_model characters $(BUNDLE)
	$(BIN)/tansaku weigh $(BUNDLE) --queries $(WORK)/jaquad/queries.jsonl --collection $(WORK)/jaquad/corpus.jsonl \
		--qrels $(WORK)/jaquad/qrels.tsv
	$(BIN)/python -m tansaku.training.default_model codec $(BUNDLE) --data $(DATA)
	$(BIN)/python -m tansaku.training.default_model row-vectors $(BUNDLE) --data $(DATA)

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "tansaku needs Python 3.10 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV) || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade "pip>=23.3"
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable .
	rm -f $(VENV)/.linked-*
	touch $@ $(LINKED)

# What is just installed is linked.
$(LINKED): $(VENV)/.installed
	@if [ ! -e $@ ] || [ $< -nt $@ ]; then \
		echo linking the files anew; $(INSTALL) --no-deps --editable . && rm -f $(VENV)/.linked-* && touch $@; fi

$(VENV)/.installed-dev: $(VENV)/.made pyproject.toml
	$(INSTALL) --editable '.[dev]'
	@# It runs beside newer packages than it asks for; tests/plugin/hosts/test_pylate.py needs no more of it than its indexes.
	$(BIN)/python -m pip install --quiet --no-deps 'pylate>=1.6,<1.7'
	rm -f $(VENV)/.linked-*
	touch $@ $(VENV)/.installed $(LINKED)

clean:
	rm -rf $(VENV) build dist *.egg-info .coverage .hypothesis .import_linter_cache .pytest_cache .ruff_cache
