# Every command that people and CI use. `make help` explains each.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
GPUS ?= 4
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup lock demo serve cluster cluster-down cluster-shell images lint types format unit test test-long test-gpu bench-engine bench-quality bench-sweep simulate-table clean clean-tools generate

help: ## Show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.done ## Make .venv from the hashed lock (requirements/dev.txt) and install the project editable

KERNELS := hatch_build.py $(wildcard server/chattts_server/engine/kernels/*)

$(VENV)/.done: requirements/dev.txt requirements/bootstrap.txt pyproject.toml $(filter-out %.so %__pycache__,$(KERNELS))
	@echo "setup: Python environment in $(VENV) (5 GB, mostly torch; a minute when uv has the wheels cached)"
	@$(PYTHON) -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "setup: $(PYTHON) is not Python 3.11 or newer with venv; install it (Debian: python3-venv) or set PYTHON="; exit 1; }
	@test -x $(PY) || $(PYTHON) -m venv $(VENV)
	@$(PY) -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(VENV)/bin/uv pip sync --quiet --python $(PY) --require-hashes requirements/dev.txt
	@$(VENV)/bin/uv pip install --quiet --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

lock: ## Resolve pyproject.toml again into requirements/*.txt (hashes, no index addresses)
	for extra in server operator dev; do \
	  $(VENV)/bin/uv pip compile --quiet --upgrade pyproject.toml --extra $$extra --generate-hashes --no-emit-index-url --no-header \
	    --python-version 3.11 -o requirements/$$extra.txt; done
	grep -hE '^(uv|hatchling)==' requirements/dev.txt | cut -d' ' -f1 | \
	  $(VENV)/bin/uv pip compile --quiet - --generate-hashes --no-emit-index-url --no-header -o requirements/bootstrap.txt

demo: setup ## The whole chain on a real Kubernetes: speech, breach, scale-out, scale-in (MODEL=, GPUS=4, KEEP=1)
	@$(PY) -m dev.demo --gpus $(GPUS) $(if $(MODEL),--model "$(MODEL)") $(if $(KEEP),--keep)

serve: setup ## Only the server on this machine's CPU (MODEL=/path/to/weights, else random weights: noise)
	@$(PY) -m dev.serve $(if $(MODEL),--model "$(MODEL)")

cluster: setup ## A single-node Kubernetes with fake GPUs (GPUS=4), without Docker
	@$(PY) -m dev.cluster up --gpus $(GPUS)

cluster-down: setup ## End that cluster: no process, mount or cgroup stays
	@$(PY) -m dev.cluster down

cluster-shell: setup ## A shell with kubectl, helm and KUBECONFIG of that cluster
	@$(PY) -m dev.cluster shell

images: setup ## Build both images; with REGISTRY=host/path also push them
	@$(PY) -m dev.cluster $(if $(REGISTRY),push --registry "$(REGISTRY)",images)

format: setup ## Let ruff format and sort imports
	@$(VENV)/bin/ruff format . && $(VENV)/bin/ruff check --fix .

lint: setup ## ruff and the layers (import-linter)
	@$(PY) -m dev.stages lint

types: setup ## mypy --strict
	@$(PY) -m dev.stages types

unit: setup ## Unit tests, no cluster
	@$(PY) -m dev.stages unit

generate: setup ## Make generated files again (the chart's copies, manifests/install.yaml, the tree in README)
	@$(PY) charts/generate.py && $(PY) -m dev.tree

test: setup ## Everything: lint, types, unit, rules, chart, packaging, end to end on the real cluster
	@$(PY) -m dev.stages all

test-gpu: setup ## The engine on a CUDA device: equality, company, memory, bad rows
	@$(PY) -m pytest -q tests/gpu

test-long: setup ## The long forms; writes a dated report to docs/reports/
	@$(PY) -m dev.stages long

bench-engine: setup ## Our engine against native ChatTTS and a batcher around it (REPEATS=5; half an hour on two cores)
	@$(PY) -m bench.engine --repeats $(or $(REPEATS),5) $(if $(MODEL),--model "$(MODEL)") $(if $(DEVICE),--device $(DEVICE))

simulate-table: setup ## The table and the samples of docs/autoscaling.md, made again by simulation (minutes)
	@$(PY) -m dev.policy_table && $(PY) -m dev.explain_samples

bench-sweep: setup ## 10 to 100 clients by wrk (Debian package wrk) and by our own client; writes docs/sweep.md
	@$(PY) -m bench.sweep --report docs/sweep.md $(if $(MODEL),--model "$(MODEL)")

bench-quality: setup ## What each knob costs and does to the sound; writes docs/quality.md
	@$(PY) -m bench.quality $(if $(MODEL),--model "$(MODEL)")

clean: ## Remove outputs and the environment of this checkout (not the shared cache)
	rm -rf out dist build $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

clean-tools: setup ## Remove the shared cache of built tools and images
	@$(PY) -m dev.cluster clean-tools
