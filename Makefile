# The menu: type `make`.
PYTHON ?= python3
PYTHON311 ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
TRAIN := .venv-train
BIN := $(VENV)/bin
DATA ?= ../shared/data
# handed on in the environment, so that a name may hold whatever it likes
RECORDING ?= tests/data/circor/68379_MV.flac
export RECORDING
DEBIAN := mosquitto chromium pulseaudio pulseaudio-utils libasound2-plugins alsa-utils portaudio19-dev gcc libsndfile1 systemd valgrind
PYTEST_ARGS ?=
# a worker a core; a test is taken over from a worker that is behind
PARALLEL ?= -n auto --dist worksteal

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-thorough test-train test-arm64 soak lint train bench image clean debian results

help:  ## this menu
	@awk -F':.*##' '/^[a-z-]+:.*##/ {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.host: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "stethopi needs Python 3.11 or newer; say which: make PYTHON=python3.11 …" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[host]'
	@touch $@

$(VENV)/.dev: $(VENV)/.host | debian
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[host,dev]'
	@touch $@

$(TRAIN)/.train: pyproject.toml
	@$(PYTHON311) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "training needs Python 3.11, where the converter's versions work together; say where it is: make PYTHON311=/path/to/python3.11 …" >&2; exit 2; }
	$(PYTHON311) -m venv $(TRAIN)
	$(TRAIN)/bin/python -m pip install --quiet --disable-pip-version-check -e '.[train]'
	@touch $@

setup: $(VENV)/.host  ## the environment of the host programs and the demo, in .venv

demo: $(VENV)/.host  ## a virtual stethoscope, its broker and the dashboard, in one command (RECORDING=heart.wav, or RECORDING= for a synthetic heart)
	$(BIN)/stethopi demo $(if $(RECORDING),--recording "$$RECORDING")

debian:
	@missing=$$(for p in $(DEBIAN); do dpkg -s $$p >/dev/null 2>&1 || echo $$p; done); \
	if [ -n "$$missing" ]; then \
	  line="apt-get install -y --no-install-recommends $$(echo $$missing)"; \
	  if [ "$$(id -u)" = 0 ]; then apt-get update -qq && DEBIAN_FRONTEND=noninteractive $$line -qq >/dev/null; \
	  elif sudo -n true 2>/dev/null; then sudo apt-get update -qq && sudo DEBIAN_FRONTEND=noninteractive $$line -qq >/dev/null; \
	  else echo "the tests need Debian packages; type: sudo $$line" >&2; exit 2; fi; \
	fi

test: $(VENV)/.dev  ## every test that needs no training environment (installs the Debian packages they use)
	$(BIN)/python -m pytest -m 'not train' $(PARALLEL) $(PYTEST_ARGS)

test-thorough: $(VENV)/.dev  ## the same, and hypothesis tries twenty times as many examples (a night)
	$(BIN)/python -m pytest -m 'not train' $(PARALLEL) --hypothesis-profile thorough --timeout 7200 $(PYTEST_ARGS)

test-train: $(TRAIN)/.train  ## the tests that train, prune, convert and quantise (an environment of its own, 3.8 GB)
	$(TRAIN)/bin/python -m pytest -m train $(PARALLEL) tests/models tests/training $(PYTEST_ARGS)

test-arm64: $(VENV)/.dev  ## the device's tests and every step of its models on an arm64 Python under qemu (an hour or more)
	@for p in mmdebstrap qemu-aarch64-static; do command -v $$p >/dev/null || { echo "it needs mmdebstrap and qemu; type: sudo apt-get install -y mmdebstrap qemu-user-static" >&2; exit 2; }; done
	nice -n 15 $(BIN)/python -m tests.arm64.emulate --write docs/results/arm64.json

soak: $(VENV)/.dev  ## eight hours of sound, exam after exam, while the broker goes and comes (most of an hour)
	nice -n 10 $(BIN)/python -m tests.soak.run --write docs/results/soak.json

lint: $(VENV)/.dev  ## ruff, mypy, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

train: $(TRAIN)/.train  ## train, prune, export and release the models (hours; DATA=folder)
	$(TRAIN)/bin/stethopi train all --data $(DATA)

bench: $(TRAIN)/.train  ## measure the released bundle; writes docs/results/*.json (DATA=folder)
	$(TRAIN)/bin/stethopi benchmark denoise --data $(DATA)
	$(TRAIN)/bin/stethopi benchmark classify --data $(DATA)
	$(TRAIN)/bin/stethopi benchmark quality --data $(DATA)
	$(TRAIN)/bin/stethopi benchmark ecg --data $(DATA)
	$(TRAIN)/bin/stethopi-device bench --instructions --write docs/results/device.json

image:  ## a card image: not yet; says how to install on a Raspberry Pi
	@echo "make image: there is none yet. On a Pi: python3 -m venv .venv && .venv/bin/pip install '.[pi]' && .venv/bin/stethopi-device run --config device.toml" >&2; exit 2

clean:  ## remove environments and build products (never data, recordings or exams)
	rm -rf $(VENV) $(TRAIN) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
