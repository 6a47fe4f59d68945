# Everything runs in .venv, which is made from setup.cfg alone: nothing has to be installed by hand.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
export TF_CPP_MIN_LOG_LEVEL ?= 3

.PHONY: help install demo test test-parity test-versions test-core test-all lint docs release-check bench clean

help:
	@echo "make demo       the main job on real embedded data, ending in runs/demo/report.html"
	@echo "make test       the test suite (at most 20 minutes on 2 cores)"
	@echo "make test-all   the full numbers: every model, kill point and fuzzed file"
	@echo "make test-parity  second opinions on the optimizers (installs torch and others), Keras's own tests"
	@echo "make test-versions  the tests marked 'versions' and one run on each row of docs/versions.md"
	@echo "make test-core  install without extras, run the main job, measure what each extra adds"
	@echo "make docs       the site, strictly and offline, in site/"
	@echo "make release-check  build the archives and check that they are complete"
	@echo "make lint       ruff and mypy"
	@echo "make bench      every benchmark, with a table at the end"

install: $(STAMP)

$(STAMP): setup.cfg setup.py pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("tfopt needs Python >= 3.11, found " + sys.version) if sys.version_info < (3, 11) else None'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e '.[test]'
	@touch $@

demo: $(STAMP)
	$(BIN)/tfopt finetune --data digits --image-size 32 --output runs/demo --overwrite

test: SHARE := -m "not full"
test test-all: $(STAMP)
	@# A second MirroredStrategy in one process breaks the first, so these run in a process of their own.
	$(BIN)/python -m pytest $(SHARE) tests/test_distribute.py tests/test_distribute_replicas.py
	$(BIN)/python -m pytest $(SHARE) tests/test_distribute_[!r]*.py
	$(BIN)/python -m pytest $(SHARE) -n 2 --dist loadfile --ignore-glob='*/test_distribute*.py'

test-parity: $(STAMP)
	$(PYTHON) -m venv .venv-parity
	.venv-parity/bin/pip install -q numpy pytest optax torch pytorch_optimizer timm schedulefree
	cd tests && ../.venv-parity/bin/python -m pytest --noconftest -c /dev/null --rootdir . -p no:cacheprovider -q test_parity.py
	$(BIN)/python tests/keras_twins.py

test-versions:
	$(PYTHON) tests/versions.py $(ROWS)

test-core:
	$(PYTHON) tests/footprint.py .versions/core

docs: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	$(BIN)/mkdocs build --strict
	$(BIN)/python tests/site.py site

release-check: $(STAMP)
	$(BIN)/python -m pip install --quiet -e '.[release]'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python tests/archives.py dist $(BIN)/python

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(STAMP)
	$(BIN)/python benchmarks/run_all.py

clean:
	rm -rf $(VENV) .versions build dist site *.egg-info runs
