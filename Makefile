# The book and its tests. `make book` and `make test` need Python 3.11 (or 3.12, 3.13) and make, nothing else.
PROFILE ?= phantom
DATA ?=
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help venv book test test-slow faults coverage browser lint format pairs picture audit lock wheel clean

help:
	@echo "make book [PROFILE=phantom|lite|paper] [DATA=folder]   execute every chapter, build _build/html"
	@echo "make test | test-slow | faults                         fast tests | the slower ones | a bench of an hour"
	@echo "make browser                                           Chromium and axe-core, for the slower tests of pages"
	@echo "make coverage                                          which lines the fast tests run"
	@echo "make lint | format | pairs | picture | audit | lock | wheel | clean"

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
test test-slow faults coverage: export OMP_NUM_THREADS ?= 1

test: venv
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist worksteal

# What the browser tests need: a Chromium, and the rules of accessibility that axe-core checks.
browser: venv
	command -v chromium >/dev/null || $(BIN)/playwright install --with-deps chromium
	npm install --prefix $(VENV)/axe --no-save --no-audit --no-fund --ignore-scripts axe-core@4.14.1

test-slow: venv
	$(BIN)/python -m pytest -m slow -n 2 --dist loadscope --ignore tests/faults

# Every command that writes is killed, starved of space and run twice at once, and files are broken in 10,000 ways.
faults: venv
	$(BIN)/python -m pytest -m slow tests/faults

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

# Known vulnerabilities of what is locked; only pip-audit itself is installed, apart from everything else.
audit:
	$(PYTHON) -m venv _build/audit
	_build/audit/bin/pip install --quiet pip-audit==2.10.1
	_build/audit/bin/pip-audit --requirement requirements.lock --disable-pip --require-hashes

lock: venv
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --quiet --generate-hashes \
		--custom-compile-command "make lock" --output-file requirements.lock

# What `pip install` needs, the network that ships included. Without old copies: setuptools would pack what lies in build/.
wheel: venv
	rm -rf build dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

clean:
	rm -rf _build build dist
