# The one door: `make` lists the targets. Every target sets up what it needs first.

VENV := .venv
PY := $(VENV)/bin/python
SUITABLE := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))
# Named after what was installed and where, so that it tells an up-to-date environment without asking the network.
STAMP := $(VENV)/.installed-$(shell { pwd; cat pyproject.toml; } | cksum | tr -s ' \t' '-')
PYTEST_WORKERS ?= 3

.DEFAULT_GOAL := help
.PHONY: help setup demo up check test bench chaos kafka docs clean
.PHONY: check-format check-lint check-types check-imports check-house check-generated

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP) ## make .venv with the project and everything that its checks and tests need
	@echo 'setup: $(VENV) is ready'

demo: $(STAMP) ## run the guided scenario on this machine; it ends by itself
	@$(PY) -m signalbox.cli demo

up: $(STAMP) ## start a node with the embedded broker; Ctrl-C ends it
	@$(PY) -m signalbox.cli up

check: check-format check-lint check-types check-imports check-house check-generated ## format, lint, types, import contracts, size gates, and whether generated files are up to date

check-format: $(STAMP)
	$(PY) -m ruff format --check .

check-lint: $(STAMP)
	$(PY) -m ruff check .

check-types: $(STAMP)
	$(PY) -m mypy

check-imports: $(STAMP)
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-logo

check-house: $(STAMP)
	$(PY) -m pytest -q tests/unit/test_house.py

check-generated: $(STAMP)
	$(PY) -m schemas.export --check
	$(PY) -m signalbox.cli.reference --check
	$(PY) -m docs.generate --check

test: $(STAMP) ## run the tests; the first lines say which Apache Kafka they use
	$(PY) -m pytest -n $(PYTEST_WORKERS)

bench: $(STAMP) ## measure throughput on a local Apache Kafka, beside other libraries
	$(PY) benchmarks/throughput.py --setup
	$(PY) benchmarks/throughput.py

chaos: $(STAMP) ## kill and freeze processes for 50 rounds on Apache Kafka, and count what was lost or doubled
	$(PY) -m pytest tests/chaos --chaos-rounds 50

kafka: $(STAMP) ## run a local Apache Kafka on 127.0.0.1:9092 (Java 17 and Maven); Ctrl-C ends it
	@$(PY) -m connectors.brokers.apache --port 9092

docs: $(STAMP) ## write the generated references again
	$(PY) -m schemas.export
	$(PY) -m signalbox.cli.reference
	$(PY) -m docs.generate

clean: ## remove everything that is made again; a node's data directory (.signalbox) stays
	rm -rf $(VENV) .bench build dist *.egg-info
	rm -rf .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP):
	@set -e; \
	if ! { [ -x $(PY) ] && $(PY) -c '$(SUITABLE)'; } 2>/dev/null; then \
	  for python in $(PYTHON) python3.12 python3.11 python3 python; do \
	    if $$python -c '$(SUITABLE)' 2>/dev/null; then found=$$python; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo 'error: this needs Python 3.11 or 3.12 with its venv module, and finds neither; install one, or name it: make PYTHON=/path/to/python3.12' >&2; \
	    exit 1; \
	  fi; \
	  echo "setup: making $(VENV) with $$($$found --version)"; \
	  $$found -m venv --clear $(VENV); \
	fi; \
	echo 'setup: installing the project and its tools, once'; \
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[dev]'; \
	rm -f $(VENV)/.installed-*; \
	touch $@
