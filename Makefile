# The two set-up commands need Python 3.11 or newer, make and nothing else; a C++ compiler makes them faster.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: table1 tables report site test check audit faults faults-full bench clean-environment

table1: $(VENV)/.installed  ## environment, then the paper's main table at the sample scale
	snakemake --cores all results/table1.csv
	@cat results/table1.md

tables: $(VENV)/.installed  ## every table and figure that needs no downloaded data; less than an hour on 2 cores
	snakemake --cores all tables

report: tables  ## the same as one HTML file to hand on: report.html
	snakemake --report report.html tables

site: tables  ## the same as static pages, with all other tables that are made: site/index.html
	rdfa site

test: $(VENV)/.installed  ## environment, then the whole test suite
	python -m pytest -n 2 --dist loadgroup

check: $(VENV)/.installed  ## formatting, lint and types
	ruff format --check .
	ruff check .
	mypy
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

audit: $(VENV)/.installed  ## known vulnerabilities of what is pinned, where api.osv.dev can be reached
	python -m pip check
	python -m tests.audit

faults: $(VENV)/.installed  ## break it on purpose: the campaign's short form, in minutes
	python -m tests.faults

faults-full: $(VENV)/.installed  ## the whole campaign; its table goes into docs/reliability.md
	python -m tests.faults --full --record docs/reliability.md

bench: $(VENV)/.installed  ## speed and memory, as ratios measured in one run
	@python -m pip install --quiet --constraint requirements.lock --requirement benchmarks/requirements.txt || \
		echo "mambapy and transformers cannot be installed here: the scan is measured without these two peers"
	python benchmarks/selective_scan.py
	python benchmarks/training_step.py
	python benchmarks/boundary_matching.py
	python benchmarks/evaluation.py

$(VENV)/.installed: requirements.lock pyproject.toml setup.py $(wildcard rdfa/ops/selective_scan/kernel/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -m rdfa.ops.selective_scan.build --check
	@touch $@

clean-environment:  ## removes the environment, nothing else
	rm -rf $(VENV)
