# Two commands for a fresh machine with Python ≥ 3.11: `make demo` and `make test`. Each makes .venv and installs
# what it needs.
#
#   make lab       the notebooks in JupyterLab, in the folder work
#   make quick     ruff, mypy, and the quick tests: decisions, values, formats, the contract: after every change
#   make test      everything, each test once, by `make coverage` or `make unmeasured`: before every commit
#   make shuffle   everything, in random order; pytest says the seed: ARGS='--randomly-seed=1' repeats it
#   make clocks    everything at six times of day, in random order; an hour, and it needs a C compiler
#   make soak      the long seeded rounds; SECONDS=28800 plays simulated runs for a night
#   make second    the quick tests of core and contract on the other Python of two, 3.11 and 3.13, where there is one
#   make windows   most quick tests and the main job on Windows' Python under Wine; as root it installs Debian's wine
#   make wheel     a wheel with data, notebooks and translations, for `uv tool install`: dist/
#   make coverage  the quick and the integration tests, measured: fails below 94 % of the lines
#   make messages  the catalogue of Chinese messages, compiled: after a change of a message
#   make notebooks the outputs of the notebooks, and the Chinese ones: after a change of notebooks/*.ipynb
#   make bench     speed, memory and growth, after a change of the hot path; a quarter of an hour, ARGS=--quick for a first look
#   make profile   the CPU of a run of links by part and thread
#   make docs      the documentation, in English and Chinese, after a change of a page: docs/_build/html/index.html
#
# ARGS goes to pytest: make quick ARGS='tests/core/engine -x'
PYTHON ?= python3
BIN := .venv/bin
PYTEST := $(BIN)/python -m pytest
# Two processes per processor, since many tests wait. Tests of one xdist_group share a process. xdist hangs if one is replaced.
PARALLEL := -n $(shell $(PYTHON) -c 'import os; print(2 * (os.cpu_count() or 1))') --dist loadgroup --max-worker-restart 0
UNMEASURED := slow or browser or notebook or kill
QUICK := not (integration or $(UNMEASURED) or soak)
MEASURED := not ($(UNMEASURED) or soak)
ARGS ?=
SECONDS ?= 600

define TOTALS
import json, sys
totals = json.load(sys.stdin)["totals"]
lines = 100 * totals["covered_lines"] / totals["num_statements"]
print(f"lines: {lines:.1f} %, of the quick and the integration tests")
sys.exit("less than 94 % of the lines" if lines < 94 else 0)
endef
export TOTALS

.PHONY: demo lab test quick unmeasured shuffle clocks soak second windows wheel coverage lint check bench profile docs messages notebooks clean

demo: .venv/core
	$(BIN)/tcb-ops demo

lab: .venv/lab
	$(BIN)/tcb-ops lab work

test: check coverage unmeasured

quick: lint
	$(PYTEST) $(PARALLEL) -m '$(QUICK)' $(ARGS)

unmeasured: .venv/dev
	$(PYTEST) $(PARALLEL) -m '($(UNMEASURED)) and not soak' $(ARGS)

shuffle: .venv/dev
	$(PYTEST) $(PARALLEL) -p randomly $(ARGS)

# Measured, tests take almost twice as long; processes, browsers and kernels are not seen.
coverage: .venv/dev
	$(PYTEST) $(PARALLEL) -m '$(MEASURED)' --cov --cov-report term $(ARGS)
	$(BIN)/coverage json -q -o - | $(BIN)/python -c "$$TOTALS"

clocks: .venv/dev
	$(BIN)/python tests/times_of_day.py $(PARALLEL) $(ARGS)

soak: .venv/dev
	SOAK_SECONDS=$(SECONDS) $(PYTEST) -m soak --timeout $$(( $(SECONDS) + 3600 )) $(ARGS)

# The other one of the two Pythons that are tested, whichever .venv has; where it is missing, a line says so.
SECOND = $(shell $(BIN)/python -c 'import sys; print("python3.11" if sys.version_info >= (3, 12) else "python3.13")')
second: .venv/core
	@if $(SECOND) -c 'import ensurepip' 2>/dev/null; then \
		$(MAKE) --no-print-directory .venv-second/dev && \
		.venv-second/bin/python -m pytest $(PARALLEL) -m '$(QUICK)' $(ARGS) tests/core tests/contract; \
	else echo "make second: there is no $(SECOND) with venv here, so nothing was tested on it."; fi

.venv-second/dev: pyproject.toml constraints.txt
	$(SECOND) -m venv .venv-second
	.venv-second/bin/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'
	.venv-second/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	touch $@

windows:
	nice tests/windows.sh

wheel: .venv/core
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --wheel-dir dist .

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Everything that reads the code without running it.
check: lint

notebooks: .venv/dev
	$(BIN)/python tests/notebooks.py $(ARGS)

bench: .venv/bench
	$(BIN)/python benchmarks/run.py $(ARGS)

profile: .venv/bench
	$(BIN)/python benchmarks/attribute.py $(ARGS)

messages: .venv/dev
	$(BIN)/python tests/messages.py

docs: .venv/docs
	$(BIN)/sphinx-build -q -W --keep-going -E -c docs -D language=en docs/en docs/_build/html/en
	$(BIN)/sphinx-build -q -W --keep-going -E -c docs -D language=zh_CN docs/zh docs/_build/html/zh
	cp docs/start.html docs/_build/html/index.html
	@echo "The documentation: docs/_build/html/index.html"

.venv/core: pyproject.toml constraints.txt
	@echo "Installing into .venv: about a minute, the first time."
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'pip>=25.1'  # the first that knows groups
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

.venv/lab: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[lab]'
	touch $@

.venv/dev: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[all]' --group dev
	touch $@

.venv/bench: .venv/core benchmarks/requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r benchmarks/requirements.txt
	touch $@

.venv/docs: .venv/core
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e . --group docs
	touch $@

clean:
	rm -rf .venv .venv-second .venv-windows dist docs/_build demo-report reports test-artifacts
