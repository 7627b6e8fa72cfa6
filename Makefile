.DEFAULT_GOAL := help
SHELL := /bin/sh
VENV := .venv/bin
PYTEST ?=

.PHONY: help
help: ## List what can be made
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  \033[1m%-10s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: dev
dev: ## Make .venv with everything: run, test, lint, bench
	@scripts/setup dev

.PHONY: demo
demo: ## Run everything on this machine and print how to use it; Ctrl-C ends it
	@scripts/setup demo
	@exec $(VENV)/footlights up --data-dir build/demo

# Most tests wait for other processes and for the disk: three at a time keep two cores busy. Files are handed out in the order of
# tests/conftest.py, the longest first.
PARALLEL := --numprocesses 3 --dist loadfile --no-loadscope-reorder

.PHONY: test
test: dev ## Run the tests, three at a time (PYTEST="-k name" for some)
	@$(VENV)/python -m pytest $(PARALLEL) -m "not slow and not real and not faults" $(PYTEST)

.PHONY: test-slow
test-slow: dev ## Run the tests that take long, three at a time
	@$(VENV)/python -m pytest $(PARALLEL) -m "slow and not real" $(PYTEST)

.PHONY: test-real
test-real: ## Run the tests on real podman, Docker and a booted systemd; needs root, installs these on Debian
	@scripts/setup real
	@$(VENV)/python -m pytest -m real $(PYTEST)

.PHONY: coverage
coverage: dev ## Run all tests and print how much of src they cover, in this process
	@$(VENV)/python -m coverage run -m pytest $(PYTEST)
	@$(VENV)/python -m coverage report

.PHONY: check
check: dev ## Lint, types, layers, protos, generated code, the contract
	@$(VENV)/ruff check .
	@$(VENV)/ruff format --check --quiet .
	@$(VENV)/mypy src tests examples
	@$(VENV)/lint-imports --no-logo
	@$(VENV)/buf lint
	@$(VENV)/buf format --diff --exit-code
	@$(VENV)/buf breaking --against proto/released.binpb
	@scripts/generate --check
	@$(VENV)/python -m tests.contract --check

.PHONY: generate
generate: dev ## Write gen/ from proto/
	@scripts/generate

.PHONY: contract
contract: generate ## Accept the contract as it is: write proto/contract.txt and the tables of docs/api-versions.md
	@$(VENV)/python -m tests.contract

.PHONY: stages
stages: dev ## Build the sample stages of the viewer (examples/stages)
	@$(VENV)/python -m examples.stages.build

.PHONY: released
released: dev ## Keep the contract of a release, which `make check` holds later changes against
	@$(VENV)/buf build --exclude-source-info -o proto/released.binpb

.PHONY: format
format: dev ## Format the code
	@$(VENV)/ruff check --fix-only --quiet . ; $(VENV)/ruff format . ; $(VENV)/buf format --write

.PHONY: bench
bench: ## Measure, and write build/bench.json (BENCH_ONLY=name for one)
	@scripts/setup bench
	@$(VENV)/python -m tests.bench

.PHONY: faults
faults: dev ## Kill, cut and starve everything (FAULTS_SEED=1,2 FAULTS_SECONDS=120), and prove that nothing was lost
	@$(VENV)/python -m tests.faults
	@$(VENV)/python -m pytest -q -m faults tests/faults

.PHONY: faults-ci
faults-ci: dev ## The same for one minute with a fixed seed
	@FAULTS_SEED=300 FAULTS_SECONDS=60 $(VENV)/python -m tests.faults

.PHONY: clean
clean: ## Remove what was built, and .venv
	rm -rf build dist .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
