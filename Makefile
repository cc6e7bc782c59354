# The book and its tests. `make book` and `make test` need Python 3.11 (or 3.12, 3.13) and make, nothing else.
PROFILE ?= phantom
DATA ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help venv book test test-slow coverage browser lint format pairs picture lock wheel clean

help:
	@echo "make book [PROFILE=phantom|lite|paper] [DATA=folder]   execute every chapter, build _build/html"
	@echo "make test | test-slow                                  fast tests | the slower ones"
	@echo "make browser                                           Chromium and axe-core, for the slower tests of pages"
	@echo "make coverage                                          which lines the fast tests run"
	@echo "make lint | format | pairs | picture | lock | wheel | clean"

venv: $(READY)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4))' || \
		{ echo "Python 3.11.4 or newer is needed, $(PYTHON) is older; make venv PYTHON=/path/to/python3.11"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

book: venv
	$(BIN)/histotransfer weights fetch
	$(BIN)/histotransfer book build --profile $(PROFILE) --data "$(DATA)"

# Two processes of tests: with threads as well they would fight for cores. Of the fast ones, whoever is done first takes
# over from the other; the slow ones of a file share what takes long, and stay in one process.
test test-slow coverage: export OMP_NUM_THREADS ?= 1

test: venv
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# What the browser tests need: a Chromium, and the rules of accessibility that axe-core checks.
browser: venv
	command -v chromium >/dev/null || $(BIN)/playwright install --with-deps chromium
	npm install --prefix $(VENV)/axe --no-save --no-audit --no-fund --ignore-scripts axe-core@4.14.1

test-slow: venv
	$(BIN)/python -m pytest -m slow -n 2 --dist loadscope

coverage: venv
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal --cov=histotransfer --cov-report=term:skip-covered

# Style, the layers of the house, types.
lint: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The paired, output-free notebooks from their py:percent sources.
pairs: venv
	$(BIN)/python -c "from histotransfer.book.build.sources import pair; print(*pair(), sep='\n')"

# The picture of the README, from the committed record.
picture: venv
	$(BIN)/python -m histotransfer.report.summary

lock: venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --quiet \
		--custom-compile-command "make lock" --output-file requirements.lock

# What `pip install` needs, the network that ships included. Without old copies: setuptools would pack what lies in build/.
wheel: venv
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf _build build dist
