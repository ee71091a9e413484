# Two commands for a fresh machine with Python ≥ 3.11: `make demo` and `make test`. Each makes .venv and installs
# what it needs.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check clean

demo: .venv/core
	$(BIN)/tcb-ops demo

test: check
	$(BIN)/python -m pytest

# Everything that reads the code without running it.
check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

.venv/core: pyproject.toml constraints.txt
	@echo "Installing into .venv: about a minute, the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv demo-report reports test-artifacts
