# What a person does with this clone.  Each target sets up what it needs (scripts/setup.sh).

.PHONY: help demo demo-stop test test-hosts wheels nightly lint format types simulate beyond planted-bugs fsx fsx-public \
	power-cuts drills corruptions pjdfstest bench lock clean
.DEFAULT_GOAL := help

BIN := .venv/bin

help:            ## Show this list
	@sed -n 's/^\([a-z-]*\): *[^#]*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo:            ## A cluster of three servers on this machine, mounted on ./mnt
	@scripts/setup.sh run
	@scripts/demo.sh

demo-stop:       ## Stop it; its data stays in .demo
	@scripts/demo.sh stop

test:            ## All checks and tests, as CI runs them
	@scripts/setup.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/t5_process --ignore tests/t5_faults
	$(BIN)/pytest tests/t5_process tests/t5_faults

test-hosts:      ## The playbooks and units on booted systemd hosts (root, and Debian's packages)
	@scripts/setup.sh hosts
	$(BIN)/pytest -m hosts tests/t7_hosts

wheels:          ## What hosts install offline, into dist/ (ansible/README.md); LOCAL=suffix of the version
	@scripts/setup.sh run
	@scripts/wheels.sh dist "$(LOCAL)"

nightly:         ## The tests whose sizes can be large, at those sizes: a day, and 100 GB of disk
	@scripts/setup.sh test
	DFS_TEST_SIZE=nightly $(BIN)/pytest tests/t6_apps tests/t5_faults

lint:            ## ruff: mistakes and style
	@scripts/setup.sh test
	$(BIN)/ruff check
	$(BIN)/ruff format --check

format:          ## Put all files into the one style
	@scripts/setup.sh test
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

types:           ## mypy --strict
	@scripts/setup.sh test
	$(BIN)/mypy

simulate:        ## Whole clusters under random faults, by seed: SEEDS=20000 START=0
	@scripts/setup.sh test
	$(BIN)/python -m tests.simulation run --seeds $(or $(SEEDS),20000) --start $(or $(START),0)

beyond:          ## The same with every copy of some chunks damaged: SEEDS=500 START=0
	@scripts/setup.sh test
	$(BIN)/python -m tests.simulation beyond --seeds $(or $(SEEDS),500) --start $(or $(START),0)

planted-bugs:    ## Does the simulation find the bugs of tests/simulation/planted?  ONLY=part of a name
	@scripts/setup.sh test
	$(BIN)/python -m tests.simulation planted --only "$(ONLY)"

fsx:             ## Random operations: OPS=1000000 SEED=1 MOUNTS=1 MORE=--sparse
	@scripts/setup.sh test
	$(BIN)/python -m tests.fsx --live $(or $(MOUNTS),1) --ops $(or $(OPS),1000000) \
		--seed $(or $(SEED),1) $(MORE)

corruptions:     ## Damaged chunk files, each found and repaired: COUNT=10000 SEED=1
	@scripts/setup.sh test
	$(BIN)/python -m tests.corruptions --count $(or $(COUNT),10000) --seed $(or $(SEED),1)

fsx-public:      ## The fsx of xfstests: SRC=clone of xfstests OPS=250000 SEED=1 MORE='--only O_DIRECT'
	@scripts/setup.sh test
	$(BIN)/python -m tests.fsx.public $(SRC) --ops $(or $(OPS),250000) --seed $(or $(SEED),1) \
		$(MORE)

power-cuts:      ## Power cuts of a whole cluster while it is written to: COUNT=1000 SEED=0 JOBS=2
	@scripts/setup.sh test
	$(BIN)/python -m tests.t5_faults.powercuts --count $(or $(COUNT),1000) --seed $(or $(SEED),0) \
		--jobs $(or $(JOBS),2)

drills:          ## metad's disk is lost under load, and restored from the chunkds: COUNT=10 SEED=0 BACK=0
	@scripts/setup.sh test
	$(BIN)/python -m tests.t5_faults.drill --rounds $(or $(COUNT),10) --seed $(or $(SEED),0) \
		--back $(or $(BACK),0)

pjdfstest:       ## POSIX system calls in four modes; SRC=its built sources, MODE=one of them
	@scripts/setup.sh test
	$(BIN)/python -m tests.conformance.pjdfstest "$(SRC)" $(MODE)

bench:           ## Run the benchmarks in bench/
	@scripts/setup.sh test
	@set -e; for program in bench/*.py; do echo "== $$program"; $(BIN)/python "$$program"; done

lock:            ## Write the lock files anew (needs uv; UV=/path/to/uv)
	@scripts/lock.sh

clean:           ## Remove what tools left; keeps .venv and the demo's data
	rm -rf build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -not -path './.venv/*' -prune -exec rm -rf {} +
