# Two commands do everything: `make serve` and `make test`. They need python3 (>= 3.11, with venv), gcc and make.
# `make bench` measures, `make check-native` looks for memory faults in the compiled modules (see docs/performance.md).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTHON_CODE := src tests bench tools setup.py
NATIVE := $(wildcard src/sttd/_*.pyx)
BUILD_INPUTS := pyproject.toml setup.py $(NATIVE) $(wildcard src/sttd/_*.pxd src/sttd/_*.h)

MODEL ?=

.PHONY: serve test lint man wheels deb release packages bench cover fuzz check-native sanitize valgrind cover-native arm64 booted fresh reliability lock lowest browser clients home-assistant clean install

serve: $(VENV)/.installed
	$(BIN)/sttd models pull
	exec $(BIN)/sttd

# In two processes, file by file. What is chosen with PYTEST_ARGS="-k ..." runs in one, and may print ("-s").
PYTEST_ARGS ?= -n 2 --dist loadfile
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest $(PYTEST_ARGS)

lint: $(VENV)/.installed-test $(VENV)/.installed-lint
	$(BIN)/ruff format --check $(PYTHON_CODE)
	$(BIN)/ruff check $(PYTHON_CODE)
	$(BIN)/mypy
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/cython-lint $(NATIVE)
	$(BIN)/lint-imports
	cd src && ../$(BIN)/python -m mypy.stubtest sttd._pcm sttd._resampler sttd._vad --ignore-missing-stub

# The package in dist/ (`make packages`) in a booted Debian, as root: debootstrap, systemd-nspawn. Some minutes a release.
RELEASES ?= bookworm trixie
booted: $(RELEASES:%=booted-%)
booted-%: $(VENV)/.installed-test
	STTD_RELEASE=$* $(BIN)/python -m pytest -m booted tests/booted

# README.md's two commands in a fresh root of each release, as root.
fresh: $(RELEASES:%=fresh-%)
fresh-%:
	tools/fresh_root.sh $*

# The acceptance figures, printed, and the tests that take long. The soak takes SOAK_S seconds; ROOM_H hours of a living
# room take a minute for five.
SOAK_S ?= 600
ROOM_H ?= 48
reliability: $(VENV)/.installed-test
	STTD_SOAK_S=$(SOAK_S) STTD_ROOM_HOURS=$(ROOM_H) $(BIN)/python -m pytest -s -m reliability

# What of the Python code the tests reach: lines and branches, in the daemons that they start too.
cover: export COVERAGE_RCFILE = $(CURDIR)/tests/coverage.ini
cover: $(VENV)/.installed-test
	rm -rf build/cover && mkdir -p build/cover
	$(BIN)/python -m coverage run -m pytest -n 2 --dist loadfile
	$(BIN)/python -m coverage combine --quiet build/cover
	$(BIN)/python -m coverage report

# Each parser of what comes from outside, for FUZZ_S seconds. Needs x86-64 and Python 3.11 to 3.13.
FUZZ_S ?= 60
fuzz: $(VENV)/.installed-test $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz --seconds $(FUZZ_S)

# The manual page, from the parser of the command line.
MAN ?= build/sttd.1
man: $(VENV)/.installed-test
	mkdir -p $(dir $(MAN))
	$(BIN)/argparse-manpage --module sttd.cli.main --function manual --prog sttd --project-name sttd --manual-title sttd \
	  --description "speech to text on your own box" --include docs/manual.txt --output $(MAN)

# What is published, in dist/: wheels and a source distribution; Debian packages; with a bill of materials and checksums.
wheels deb: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --format=%ct)
ARCHITECTURES ?= amd64 arm64
wheels: $(VENV)/.installed-package
	tools/wheels.sh $(patsubst arm64,aarch64,$(patsubst amd64,x86_64,$(ARCHITECTURES)))

deb: MAN = build/sttd.1
deb: wheels man
	umask 022 && PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m tools.deb $(ARCHITECTURES)

release:
	rm -rf dist
	$(MAKE) deb ARCHITECTURES="$(ARCHITECTURES)"
	$(BIN)/cyclonedx-py requirements requirements/all.txt --pyproject pyproject.toml --output-reproducible \
	  --output-file dist/sttd.cdx.json
	cd dist && sha256sum sttd* > SHA256SUMS

# For this machine alone, and a look inside.
packages: ARCHITECTURES = $(shell dpkg --print-architecture)
packages: $(VENV)/.installed-test release
	$(BIN)/python -m pytest -m packages tests/packages

# As root: the package for this machine, and a model. `apt purge sttd` removes both.
install: ARCHITECTURES = $(shell dpkg --print-architecture)
install: deb
	apt-get install -y $(ARCHITECTURES:%=./dist/sttd_*_%.deb)
	sttd models pull $(MODEL)

# The page in a real Chromium and a real Firefox, where they are. With STTD_PICTURES=FOLDER each state is kept as a picture.
browser: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m browser tests/browser

# Programs of others, unchanged, each in an environment of its own: clients of OpenAI's API and of Wyoming; and Home
# Assistant itself, with its Wyoming integration.
clients: $(VENV)/.installed-test
	$(BIN)/python -m pytest -s -m clients tests/clients/test_clients.py tests/clients/test_web_speech.py

home-assistant: $(VENV)/.installed-test
	$(BIN)/python -m pytest -s -m clients tests/clients/test_home_assistant.py

bench: $(VENV)/.installed-bench
	$(BIN)/python -m bench --full --write

# The compiled modules under checks that a normal build leaves out; each runs all of tests/pcm on a copy in build/.
check-native: sanitize valgrind cover-native

# The same tests on an emulated Cortex-A72 (a Pi 4).
arm64: $(VENV)/.installed-test
	tools/arm64.sh

NATIVE_TESTS = $(CURDIR)/$(BIN)/python $(RUNNER) -m pytest -p no:cacheprovider --timeout=600 tests/pcm
define rebuilt
	rm -rf build/$@ && mkdir -p build/$@ && cp -r src setup.py pyproject.toml README.md LICENSE tests build/$@
	rm -f build/$@/src/sttd/*.so build/$@/src/sttd/_*.c
	mkdir -p .cache && ln -s ../../.cache build/$@/.cache
	cd build/$@ && PATH="$(CURDIR)/$(BIN):$$PATH" $(BUILD) python setup.py -q build_ext --inplace
endef

sanitize: BUILD = CFLAGS="-fsanitize=address,undefined -fno-sanitize-recover=undefined -g -O1 -DSTTD_NO_CLONES"
sanitize: $(VENV)/.installed-test
	$(rebuilt)
	cd build/$@ && PYTHONPATH=src STTD_NATIVE_CHECK=sanitize PYTHONMALLOC=malloc ASAN_OPTIONS=detect_leaks=0 \
	  LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" $(NATIVE_TESTS)

valgrind: BUILD = CFLAGS="-g -O2"
valgrind: $(VENV)/.installed-test
	$(rebuilt)
	cd build/$@ && PYTHONPATH=src STTD_NATIVE_CHECK=valgrind PYTHONMALLOC=malloc \
	  valgrind --quiet --error-exitcode=9 --leak-check=no --suppressions=tests/pcm/valgrind.supp $(NATIVE_TESTS)

cover-native: BUILD = STTD_CYTHON_DEBUG=1 CFLAGS="-O1 -DSTTD_NO_CLONES"
cover-native: RUNNER = -m coverage run
cover-native: $(VENV)/.installed-test
	$(rebuilt)
	cd build/$@ && PYTHONPATH=src STTD_NATIVE_CHECK=cover $(NATIVE_TESTS)
	cd build/$@ && $(CURDIR)/$(BIN)/python -m coverage report --include='*.pyx' --show-missing --fail-under=95

# Debian's python3 comes without the headers that compiling needs.
HAS_HEADERS := import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "sttd needs Python 3.11 or newer"; exit 1; }
	@$(PYTHON) -c '$(HAS_HEADERS)' || { echo "Python's headers are missing; installing python3-dev"; \
	  SUDO=; [ "$$(id -u)" = 0 ] || SUDO="sudo -n"; $$SUDO apt-get install -y -q --no-install-recommends python3-dev; } \
	  || { echo "Install them yourself, then run make again: sudo apt install python3-dev"; exit 1; }
	$(PYTHON) -m venv $(VENV)

# Everything that is installed is in requirements/, with its hashes; `make lock` writes the files anew.
COMMA := ,
PIP_FLAGS := --quiet --disable-pip-version-check --no-build-isolation --use-pep517
define locked
	$(1) install $(PIP_FLAGS) --require-hashes -r requirements/build.txt
	$(1) install $(PIP_FLAGS) --require-hashes $(2:%=-r requirements/%.txt)
endef

$(VENV)/.installed: $(BUILD_INPUTS) requirements/vosk.txt requirements/faster-whisper.txt | $(BIN)/python
	$(call locked,$(BIN)/pip,vosk faster-whisper)
	$(BIN)/pip install $(PIP_FLAGS) --no-deps --editable .
	touch $@

$(VENV)/.installed-%: requirements/%.txt | $(VENV)/.installed
	$(call locked,$(BIN)/pip,$*)
	touch $@

# The newest versions of everything, then the tests with them. pyproject.toml has the bounds.
lock: $(VENV)/.installed-lock
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python tools/lock.py
	$(MAKE) test

# The tests with the lowest versions that pyproject.toml allows, on Python 3.11.
lowest:
	rm -rf build/lowest && $(PYTHON) -m venv build/lowest
	$(call locked,build/lowest/bin/pip,lowest)
	build/lowest/bin/pip install $(PIP_FLAGS) --no-deps .
	build/lowest/bin/python -m pytest $(PYTEST_ARGS)

clean:
	rm -rf $(VENV) build dist src/*.egg-info src/sttd/_*.c src/sttd/*.so
