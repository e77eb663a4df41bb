# Two commands: `make demo` runs the pipeline on the embedded data, `make test` passes the tests.
# Both set everything up first, in .venv, and may be repeated.

PYTHON ?= python3
TESTERS ?= 3
SLURM_TESTS ?= tests/slurm
UV := $(shell sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.txt)
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: setup demo test test-slurm lint types docs requirements cifar10 benchmark chaos explain plan \
	status doctor clean

setup: .venv/installed

# Compiled at once: where PYTHONDONTWRITEBYTECODE is set, or .venv cannot be written, each start of
# PyTorch would take 6 s instead of 3.
.venv/installed: requirements.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; (3, 11) <= v < (3, 14) or sys.exit(f"Python 3.11 to 3.13 is needed; $(PYTHON) is {v[0]}.{v[1]}. Name another: make PYTHON=python3.12")'
	@echo "Setting up .venv: about 7 GB with PyTorch, some minutes the first time"
	test -x .venv/bin/python || $(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --quiet $(UV)
	VIRTUAL_ENV=.venv uv pip install --quiet --compile-bytecode --require-hashes -r requirements.txt
	touch $@

demo: setup
	snakemake --profile profiles/local

test: setup lint types
	pytest -n $(TESTERS) --dist loadfile --no-loadscope-reorder --ignore tests/slurm

# The failures of clusters, happening on a real Slurm of four nodes on this machine, 6 to 8 minutes.
# Installs Debian's packages of Slurm, Munge and MariaDB, which needs root; where they are, it needs
# root or a kernel where users may make namespaces.
test-slurm: setup
	@if [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && ! command -v slurmctld > /dev/null; then \
		echo "Installing Debian's packages of Slurm, Munge and MariaDB"; \
		timeout 60 apt-get update -qq && DEBIAN_FRONTEND=noninteractive timeout 240 apt-get install -y -qq \
			--no-install-recommends slurmctld slurmd slurm-client munge slurmdbd mariadb-server iproute2 > /dev/null || echo "They could not be installed"; fi
	@lacks=$$(python tests/slurm/slurmbox.py --missing); \
	if [ -z "$$lacks" ]; then pytest -n $(TESTERS) $(SLURM_TESTS); \
	else echo "SKIPPED, NOTHING WAS TESTED: no Slurm can run here, missing: $$lacks"; fi

lint: setup
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow/rules
	snakemake --lint

types: setup
	mypy

# What is generated from the code: the reference of the configuration, the conda environment.
docs: setup
	python docs/generate.py

requirements: setup
	uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --upgrade -q -o requirements.txt
	uv pip compile benchmarks/requirements.in -c requirements.txt --universal --python-version 3.11 \
		--generate-hashes --no-emit-index-url --no-header --upgrade -q -o benchmarks/requirements.txt

# The experiment of the README, three seeds, then their table.
cifar10: setup
	for seed in 1 2 3; do \
		snakemake --profile profiles/local --configfile examples/cifar10.yaml \
			--config seed=$$seed results=results/cifar10/seed-$$seed || exit 1; \
	done
	python examples/summarize.py results/cifar10/seed-1 results/cifar10/seed-2 results/cifar10/seed-3

# What the figures in benchmarks/README.md were made with.
FOLDER ?= /tmp/semisup-benchmark
benchmark: setup
	VIRTUAL_ENV=.venv uv pip install --quiet --require-hashes -r benchmarks/requirements.txt
	PYTHONPATH=$(CURDIR)/workflow; export PYTHONPATH; \
	python benchmarks/store.py $(FOLDER)/store && \
	python benchmarks/compare_merge.py $(FOLDER)/merge && \
	python benchmarks/must_read.py $(FOLDER)/merge/semisup && \
	python benchmarks/adversaries.py $(FOLDER)/adversaries && \
	python benchmarks/compare_pack.py $(FOLDER)/pack && \
	python benchmarks/questions.py $(FOLDER)/questions && \
	python benchmarks/first_batch.py $(FOLDER)/pack && \
	python benchmarks/duplicates.py $(FOLDER)/duplicates && \
	python benchmarks/dag.py $(FOLDER)/dag && \
	{ test -d $(FOLDER)/networks/timm || git clone --quiet --depth 1 --branch v1.0.31 \
		https://github.com/huggingface/pytorch-image-models $(FOLDER)/networks/timm; } && \
	python benchmarks/compare_networks.py $(FOLDER)/networks

# Kill processes at random moments, fill the disk, lock folders; then compare with a calm run.
KILLS ?= 30
SEED ?= 0
CHAOS_CONFIG ?= config.yaml
chaos: setup
	rm -rf results/chaos
	python tests/chaos.py results/chaos --config $(CHAOS_CONFIG) --kills $(KILLS) --seed $(SEED)

# Why an image is or is not in a selection: make explain KEY=... [SELECTION=top] [CONFIG=config.yaml]
SELECTION ?= top
CONFIG ?= config.yaml
# A key may hold anything: as it was given it comes by the environment, where no shell reads it, and
# make does not expand it.
unexport KEY
explain: export GIVEN_KEY := $(value KEY)
explain: setup
	@PYTHONPATH=workflow python -m semisup.questions.explain --configfile $(CONFIG) \
		--selection "$(SELECTION)" --key="$$GIVEN_KEY"

# How large a selection would be: make plan K="100 1000" P="1 10" FRACTION="0.5 1" [SELECTION=top]
K ?= 1000
P ?= 1
FRACTION ?= 1
# Whether this cluster can run the pipeline, and what to change in site.yaml.
doctor: setup
	@PYTHONPATH=workflow python -m semisup.questions.doctor

# Where a run is: parts done, images a second, time left, errors. [CONFIG=config.yaml]
status: setup
	@PYTHONPATH=workflow python -m semisup.questions.status --configfile $(CONFIG)

plan: setup
	@PYTHONPATH=workflow python -m semisup.questions.sizes --configfile $(CONFIG) \
		--selection "$(SELECTION)" --k "$(K)" --p "$(P)" --fraction "$(FRACTION)"

clean:
	rm -rf results .snakemake
