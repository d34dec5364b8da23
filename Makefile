# `make` alone prints the targets. Everything is installed into .venv; PYTHON chooses the interpreter that makes it.
PYTHON ?= python3
VENV ?= .venv
ARGS ?=

BIN := $(VENV)/bin
CONSTRAINTS := requirements/constraints.txt
# `exec`, so that a signal for make reaches Python and not a shell between the two.
SHOP := exec env PYTHONPATH=tests $(BIN)/python -m

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test check lint format docs messages bench measure faults build clean demo-smoke screenshots tox

help:  ## Print the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(VENV)/.demo  ## Run the jewelry shop with its cache; REDIS_URL=... uses your server
	$(SHOP) shop.demo $(ARGS)

test: $(VENV)/.test  ## Run the tests; ARGS="-k keys -x" reaches pytest
	$(BIN)/python -m pytest $(ARGS)

check: lint build docs test  ## Everything CI runs, but for the demo

lint: $(VENV)/.lint $(VENV)/.test  ## Check format, style and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/.lint  ## Format the code and mend what ruff can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs  ## Build the documentation into build/docs
	$(BIN)/sphinx-build -q -W --keep-going -d build/doctrees docs build/docs
	@echo "build/docs/index.html"

messages: $(VENV)/.test  ## Bring the translations up to date with the code (needs gettext); ARGS="-l es" begins a new one
	$(BIN)/python tests/catalogues.py $(ARGS)

bench: $(VENV)/.test  ## Measure against other libraries on this machine
	$(SHOP) bench $(ARGS)

measure: $(VENV)/.demo  ## Time the shop's pages with the cache on and off
	$(SHOP) shop.measure $(ARGS)

faults: $(VENV)/.test  ## Break Redis, transactions and processes on purpose, at length; ARGS="key_loss --seed 2" names one
	$(SHOP) faults $(or $(ARGS),all)

build: $(VENV)/.test  ## Build the sdist and the wheel into dist
	@rm -rf dist
	$(BIN)/python -m build --outdir dist .

demo-smoke: $(VENV)/.demo  ## Start the demo, use it over HTTP, stop it
	$(SHOP) shop.smoke $(ARGS)

screenshots: $(VENV)/.demo $(VENV)/.pictures  ## Take the pictures of the documentation from the running demo (needs chromium)
	$(SHOP) shop.screenshots $(ARGS)

tox: $(VENV)/.tox  ## Run the tests on each Python and Django that is installed
	$(BIN)/tox run $(ARGS)

clean:  ## Remove what make has made, .venv too
	rm -rf $(VENV) .tox build dist *.egg-info .coverage .coverage.* htmlcov .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "No $(PYTHON) here. Install Python 3.11 or newer, or say make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; say make PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { echo "$(PYTHON) cannot make environments; on Debian: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# One stamp an extra: installed again only when the metadata or the pins change.
$(VENV)/.tox: | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) tox
	@touch $@

$(VENV)/.%: setup.cfg pyproject.toml $(CONSTRAINTS) | $(BIN)/python
	@echo "Installing what \`make $*\` needs into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e ".[$*]"
	@touch $@
