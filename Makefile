# Two commands matter: `make reproduce` and `make test`. Both make .venv by themselves.
PYTHON ?= python3
STUDY ?= split_digits_fisher
SCALE ?= cpu
ARGS ?=
BUDGET ?= 540
DATA ?=

VENV := .venv
PY := $(VENV)/bin/python
READY := $(VENV)/.ready
# Two processes of one thread each, of one test file each at a time; one that dies ends it all, with a failure.
# The plugin that runs notebooks, half a second in each process, is not needed for tests.
PARALLEL := -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart 0 -p no:nbmake
LONG := -o timeout=1200 -o faulthandler_timeout=1210   # slow tests may take 20 minutes each, others 5 (pyproject.toml)

.DEFAULT_GOAL := help
.PHONY: help install reproduce status plan anatomy unifying idea data figures tables report docs notebooks ledger check test test-all test-slurm lint bench gpu clean

help: ## list the targets
	@echo "usage: make <target> [STUDY=...] [SCALE=smoke|cpu|paper] [ARGS='key=value ...']"
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | awk -F'|' '{printf "  %-12s %s\n", $$1, $$2}'
	@echo "studies: $(basename $(notdir $(wildcard conf/study/*.yaml)))"

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $(PYTHON) is older than Python 3.11; set PYTHON=python3.11 or newer" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || \
		{ echo "error: $(PYTHON) has no venv module; install it (Debian and Ubuntu: apt-get install python3-venv)" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[dev]' -c constraints.txt
	@touch $@

install: $(READY) ## make .venv with everything in it

reproduce: $(READY) ## run a study (default: digits, a minute or two) to its CSVs, figure and tables; run again to continue
	$(PY) -m cl_repro study=$(STUDY) scale=$(SCALE) $(ARGS)

status: $(READY) ## how far a study is: done, running, stopped, failed, missing
	$(PY) -m cl_repro status study=$(STUDY) scale=$(SCALE) $(ARGS)

plan: $(READY) ## what a study would cost on this machine, measured, before it is launched
	$(PY) -m cl_repro plan study=$(STUDY) scale=$(SCALE) $(ARGS)

anatomy: $(READY) ## measure all Fisher estimators on one trained network (ARGS='benchmark=split_mnist seeds=[1,2,3]')
	$(PY) scripts/measure.py anatomy $(ARGS)

unifying: $(READY) ## all measures of the unifying study beside one run of SI (ARGS='study=unifying_figures_permuted_mnist')
	$(PY) scripts/measure.py unifying $(ARGS)

idea: $(READY) ## two tasks and three methods in a plane of parameter space, measured and drawn
	$(PY) scripts/measure.py idea $(ARGS)

data: $(READY) ## download the real data sets (or DATA=mnist) into ./data (or the folder CL_REPRO_DATA)
	$(PY) scripts/prepare_data.py $(DATA)

figures: $(READY) ## draw all figures again, from the CSVs alone
	$(PY) scripts/plot.py

tables: $(READY) ## write all tables again, from the CSVs alone
	$(PY) scripts/table.py

report: $(READY) ## all results as pages, beginning with what was found: results/report/index.html
	$(PY) scripts/report.py

$(VENV)/.docs: $(READY)
	$(PY) -m pip install --quiet --disable-pip-version-check -e '.[docs]' -c constraints.txt
	@touch $@

docs: $(VENV)/.docs ## build the documentation, strictly and without a network: build/docs/index.html
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict
	@echo "build/docs/index.html; with its search: $(PY) -m http.server --directory build/docs"

notebooks: $(READY) ## execute the notebooks again and write their outputs (after new results)
	$(PY) tests/test_notebooks.py

ledger: $(READY) ## write results/LEDGER.md: every published number beside ours, with its verdict
	$(PY) scripts/ledger.py

check: $(READY) ## fail if a row that agrees in the ledger does not agree any more
	$(PY) scripts/ledger.py --check

test: lint ## what CI runs: formatting, types and the tests of a few minutes
	$(PY) -m pytest -q $(PARALLEL)

test-all: lint ## all tests, the long ones too
	$(PY) -m pytest -q $(PARALLEL) $(LONG) -m 'not gpu'
	$(PY) -m pytest -q $(LONG) --nbmake notebooks

test-slurm: $(READY) ## sweeps on a SLURM of two nodes, which this starts here and stops (as root on Debian: installs it)
	bash tests/slurm_node.sh start
	$(PY) -m pytest -q -n 4 $(LONG) -m slurm tests/test_slurm.py; status=$$?; bash tests/slurm_node.sh stop; exit $$status

lint: $(READY)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

bench: $(READY) ## measure speed as ratios within one process, into results/bench
	$(PY) scripts/bench.py $(ARGS)

gpu: $(READY) ## all that a CUDA GPU is for, in slices of BUDGET seconds: tests, speed, studies; again to continue
	$(PY) scripts/gpu.py --budget $(BUDGET)

clean: ## remove .venv and caches, never results or data
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis *.egg-info
