# Needs git, make and Python 3.11 or newer with venv. Every target sets up what it needs, once.
# Kept to what GNU make 3.81 (macOS) knows.
.PHONY: help setup demo test simulate simulate-points between planted mutate chaos chaos-points fuzz bench bench-floor check drills format audit lock clean
.DEFAULT_GOAL := help

BIN := .venv/bin
ARGS :=
SEED := 1
KILLS := 40

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{ printf "%-23s%s\n", $$1, $$2 }'

setup:
	@sh tools/setup.sh

demo: setup ## the whole system on this machine, until Ctrl-C (or DEMO_SECONDS=n)
	@$(BIN)/maewol demo

JOBS := 3
test: setup ## every test but the long suites, JOBS=n side by side; ARGS='-k name' for some
	@$(BIN)/python -m pytest -m "not long" -n $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

SEEDS := 1000
MONTHS := 12
simulate: setup ## a year of faults for each of SEEDS seeds (MONTHS=n, FIRST=n, ARGS='--subscriptions 24')
	@$(BIN)/maewol simulate --chaos --seed $(or $(FIRST),1) --seeds $(SEEDS) --months $(MONTHS) \
	  --processes $(or $(PROCESSES),2) $(ARGS)

simulate-points: setup ## a fault at every point of a month, in pairs too; any order of anything (an hour)
	@$(BIN)/python -m pytest -m long tests/simulation tests/integration/test_state_machine.py $(ARGS)

between: setup ## any two operations, the one at every place in the other (two hours)
	@$(BIN)/python -m pytest -m long -n 2 tests/between $(ARGS)

planted: setup ## plant every known mistake and show how soon the simulation finds it
	@$(BIN)/python -m tests.simulation.planted $(ARGS)

FILES := billing/domain/plan.py
mutate: setup ## small mistakes in FILES='a.py b.py': does a test notice each? (docs/mutants.md)
	@$(BIN)/python -m tests.mutation $(FILES) $(ARGS)

chaos: setup ## kills real processes and judges by the gateway's ledger; SEED=n KILLS=n
	@$(BIN)/python -m tests.chaos --seed $(SEED) --kills $(KILLS) $(ARGS)

chaos-points: setup ## kills a charge at every system call; servers away; Ctrl-C (15 minutes)
	@$(BIN)/python -m pytest -m long tests/chaos -s $(ARGS)

SECONDS := 20
fuzz: setup ## hostile bytes, guided by coverage, SECONDS=n for each target (Linux, x86-64)
	@sh tools/setup_fuzzer.sh
	@PYTHONPATH=.fuzz $(BIN)/python -m tests.fuzz $(SECONDS) $(ARGS)

bench: setup ## charges per second through everything, beside a bare loop and a plain script
	@$(BIN)/python benchmarks/pipeline.py $(ARGS)

bench-floor: setup ## the same, small: fails where Maewol falls behind the same requests or the script
	@$(BIN)/python benchmarks/pipeline.py --charges 6000 --delays-ms 50 --processes 2 \
	  --only look,script,maewol --floor 0.3 --script-floor 1.3 --most-processor 9

check: setup ## format, lint, types, import rules, dependency audit
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@$(BIN)/python tools/audit.py

drills: setup ## restore a backup, lose a primary, deploy in mid-work: real processes, really killed
	$(BIN)/python -m pytest -m "long or not long" tests/lasting -s $(ARGS)

format: setup ## put the code into the form that check wants
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

audit: setup ## ask the advisory service about every locked package
	@$(BIN)/python tools/audit.py

lock: ## choose versions anew, within the bounds of pyproject.toml
	@sh tools/lock.sh

clean: ## remove what the other targets made
	rm -rf .venv .fuzz .promtool .demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
