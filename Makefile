# What a person types. Each target brings what it needs (packages, .venv, wheels, the image of a node), shows one line per
# step, and can be run again at once: every step looks first whether it has anything to do. Output of the steps: build/logs.
SHELL := /bin/bash
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export DEBIAN_FRONTEND := noninteractive
export LC_ALL := C.UTF-8
export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PYTHONDONTWRITEBYTECODE := 1
export ANSIBLE_HOME := $(CURDIR)/build/ansible

PY := .venv/bin/python
STEP := @make/step
NODES := $(PY) -m tests.nodes

.PHONY: help demo test acceptance faults exactness simulate soak lint unit bench nodes prepare prerequisites venv wheelhouse image lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):[^#]*## \(.*\)/\1\t\2/p' Makefile | expand -t 16

demo: prepare ## three nodes become a PostgreSQL mirror and an nginx farm, and a node dies under load
	@$(PY) -m demo

test: venv ## every gate: style, types, contracts, units, native, collection, nodes, molecule
	@$(PY) make/gates.py

acceptance: prepare ## the 59 acceptance cases on nodes: a table of their ids, build/reports/acceptance.json (CASES="-k m3")
	$(STEP) "a browser" make/prerequisites chromium
	@$(PY) -m pytest --quiet -p no:cacheprovider --timeout=600 --tb=short tests/acceptance $(CASES)

soak: SEED := $(shell od -An -N4 -tu4 /dev/urandom | tr -d ' ')
soak: prepare ## random sequences and fuzzing for longer, 200 seeded schedules of faults on nodes under load, and the stall of a lost secondary (SEED=number printed by an earlier run, SEEDS="--first 1 --schedules 20")
	$(STEP) "20,000 random sequences, SEED=$(SEED)" env SAFEKIT_MODEL_SEED=$(SEED) SAFEKIT_MODEL_SEQUENCES=20000 $(PY) -m pytest --quiet tests/model --numprocesses=2 --timeout=7200
	$(STEP) "fuzzing, five minutes each, SEED=$(SEED)" env SAFEKIT_FUZZ_SEED=$(SEED) SAFEKIT_FUZZ_SECONDS=300 $(PY) -m pytest --quiet tests/fuzz --timeout=600
	@PYTHONPATH=runtime/src $(PY) -m tests.durability --stalls 10 $(SEEDS)

faults: CUTS := 50
faults: prepare ## what is cut, stopped or lost on nodes under a witness, and the link CUTS=50 times under load: build/reports/faults.json
	@$(PY) -m pytest --quiet -p no:cacheprovider --timeout=600 --tb=short tests/faults
	@PYTHONPATH=runtime/src $(PY) -m tests.faults --cuts $(CUTS)

exactness: PACKETS := 1000000
exactness: venv ## a million packets through a farm that changes all the time, each accepted by exactly one node (PACKETS=number): build/reports/farm.json
	@PYTHONPATH=runtime/src $(PY) -m tests.netns.exactness --packets $(PACKETS)

simulate: SEEDS := 20000
simulate: venv ## whole lives of mirrors under one seeded scheduler, with the register of a witness; then each rule dropped (SEEDS=number, FIRST=seed)
	@PYTHONPATH=runtime/src $(PY) -m tests.simulation --seeds $(SEEDS) $(if $(FIRST),--first $(FIRST))

lint: venv ## the quick gates: style, types, contracts, shell
	@$(PY) make/gates.py style types contracts shell

unit: venv ## the tests that need no node, with the coverage of the pure packages
	@$(PY) make/gates.py units

bench: prepare ## measure: the table of replication, a million files, thirty-two modules, memory and idle processor, failover, the farm (docs/reference/performance.md)
	$(STEP) "packages to compare with" make/prerequisites fio glusterfs-server postgresql nginx-light haproxy wrk
	@$(PY) -m benchmarks

nodes: image ## boot the nodes n1, n2, n3 and client (lab/engine exec -it n1 bash)
	$(STEP) "nodes" $(NODES) up

prepare: wheelhouse image

prerequisites: ## packages of Debian that this machine lacks
	$(STEP) "prerequisites" make/prerequisites

venv: prerequisites ## the virtual environment .venv from requirements-dev.lock
	$(STEP) "virtual environment" make/venv

wheelhouse: venv ## build/wheelhouse: the runtime and all it needs, for nodes without a network
	$(STEP) "wheelhouse" make/wheelhouse

image: venv ## the image of a node
	$(STEP) "node image" $(NODES) image

lock: venv ## pin again what requirements-dev.in and runtime/pyproject.toml ask for (make lock UPGRADE=--upgrade)
	$(STEP) "lock files" $(PY) make/lock $(UPGRADE)

clean: ## remove the nodes, the lab, the images, .venv and everything built
	@make/clean
