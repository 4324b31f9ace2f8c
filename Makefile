.PHONY: help setup lint format test test-long test-fast test-gpu-profile docs study-check

export AVAR_VENV ?= $(CURDIR)/.venv
export OMP_NUM_THREADS = 1
export HF_HUB_OFFLINE = 1
# Ray would run its workers behind the tests beside them.
export RAY_worker_niceness = 0

help:  ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

setup:  ## make .venv with the pinned stack (about a second when done already)
	@recipes/setup.sh

lint: setup  ## rules and formatting (ruff), types (pyright)
	$(AVAR_VENV)/bin/ruff check .
	$(AVAR_VENV)/bin/ruff format --check .
	$(AVAR_VENV)/bin/pyright --pythonpath $(AVAR_VENV)/bin/python

format: setup  ## let ruff rewrite the files
	$(AVAR_VENV)/bin/ruff check --fix .
	$(AVAR_VENV)/bin/ruff format .

test: lint  ## set up, lint, and run the tests that need no GPU, but for the long ones
	$(AVAR_VENV)/bin/python -m pytest -m "not gpu and not long" -n 2 --durations=40

test-long: setup  ## the tests left out by `make test`: further trainings, one after the other
	$(AVAR_VENV)/bin/python -m pytest -m "long and not gpu" --durations=20

test-fast: setup  ## units and numerics alone, without verl, Ray or vLLM: under 3 minutes
	$(AVAR_VENV)/bin/python -m pytest tests/unit tests/numerics -m "not gpu and not e2e and not slow" --durations=5

# The tests that start vLLM's engine (e2e) need its CPU build, and those marked gpu a card.
test-gpu-profile: export AVAR_PROFILE = gpu
test-gpu-profile: export AVAR_VENV = $(CURDIR)/.venv-gpu
test-gpu-profile:  ## the GPU profile's versions, tested without a GPU, in .venv-gpu
	recipes/setup.sh
	$(AVAR_VENV)/bin/python -m pytest tests/unit tests/numerics tests/contracts -m "not gpu and not e2e" -n 2 --durations=15

study-check: setup  ## every study with results in docs/study/: page and plots are what the JSON gives, or it fails
	@for folder in docs/study/*/runs; do \
	  [ ! -d "$$folder" ] || $(AVAR_VENV)/bin/avar study report --check recipes/studies/$$(basename $$(dirname $$folder)).yaml || exit 1; \
	done

docs: setup  ## build the documentation as a site in site/; a dead link fails
	$(AVAR_VENV)/bin/mkdocs build --strict
