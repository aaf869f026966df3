# Two commands do everything: `make serve` and `make test`. They need python3 (>= 3.11, with venv), gcc and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_INPUTS := pyproject.toml setup.py src/sttd/_pcm.pyx

.PHONY: serve test lint clean

serve: $(VENV)/.installed
	$(BIN)/sttd models pull
	exec $(BIN)/sttd

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff format --check src tests setup.py
	$(BIN)/ruff check src tests setup.py
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint src/sttd/_pcm.pyx
	$(BIN)/lint-imports
	cd src && ../$(BIN)/python -m mypy.stubtest sttd._pcm --ignore-missing-stub

# Debian's python3 comes without the headers that compiling needs.
HAS_HEADERS := import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sttd needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c '$(HAS_HEADERS)' || { echo "Python's headers are missing; installing python3-dev"; \
	  SUDO=; [ "$$(id -u)" = 0 ] || SUDO="sudo -n"; $$SUDO apt-get install -y -q --no-install-recommends python3-dev; } \
	  || { echo "Install them yourself, then run make again: sudo apt install python3-dev"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --upgrade "pip>=25.1"

$(VENV)/.installed: $(BUILD_INPUTS) | $(BIN)/python
	$(BIN)/pip install --disable-pip-version-check --editable '.[vosk,faster-whisper]'
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check --group test
	touch $@

$(VENV)/.installed-lint: pyproject.toml | $(BIN)/python
	$(BIN)/pip install --quiet --disable-pip-version-check --group lint
	touch $@

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/sttd/_pcm.c src/sttd/*.so
