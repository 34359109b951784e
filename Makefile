# make demo | make lint | make test | make test-documentation | make test-kills | make test-checkpoints | make test-planning | make faults | make learn | make install     VENV=path of the virtual environment (made if absent), RUN=output folder, STEPS=n
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
VENV ?= .venv
RUN ?= runs/demo
STEPS ?=
CONFIG ?= ds_configs/demo_cpu.json
MANIFEST ?= data/samples/manifest.jsonl
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)

# Recipes read these from the environment, in quotes: a path may hold blanks, and must not be empty where it is deleted.
export RUN CONFIG MANIFEST
$(if $(filter 1,$(words $(VENV))),,$(error VENV: expected a path without blanks, found "$(VENV)"))

bin := $(abspath $(VENV))/bin
stamp := $(VENV)/.skysense-installed
pin = $(shell sed -n 's/^ *\($(1)==[^ ]*\) *$$/\1/p' setup.cfg)

# deepspeed and ninja (it compiles a small op at first use) are found beside this environment's python.
export PATH := $(bin):$(PATH)
# Two ranks that share the cores are slower with a thread pool each.
export OMP_NUM_THREADS ?= 1
# Ranks, a free port, and an accelerator only where torch sees no GPU: the same commands use the GPUs where there are
# some. Two ranks, the expert parallelism of the demo, unless there is exactly one GPU.
define machine
import socket, torch
s = socket.socket()
s.bind(("", 0))
print(1 if torch.cuda.device_count() == 1 else 2, s.getsockname()[1], "" if torch.cuda.is_available() else "DS_ACCELERATOR=cpu")
endef
export machine
probe = read -r ranks port accelerator <<< "$$($(bin)/python -c "$$machine")"

.PHONY: install lint test test-documentation test-kills test-checkpoints test-planning faults run-folder demo learn learn-ucmerced learn-bigearthnet
install: $(stamp)

# torch comes first: DeepSpeed's build imports it. The stamp spares later calls the check.
$(stamp): setup.cfg pyproject.toml
	@[ -n "$(PYTHON)" ] || [ -x $(bin)/python ] || { echo "error: no Python 3.11 or newer with venv found; set PYTHON=" >&2; exit 2; }
	[ -x $(bin)/python ] || $(PYTHON) -m venv $(VENV)
	$(bin)/python -m pip install --upgrade pip 'setuptools>=69,<82' wheel $(call pin,ninja)
	$(bin)/python -m pip install $(call pin,torch) $(call pin,torchvision) $(call pin,numpy)
	$(bin)/python -m pip install --no-build-isolation $(call pin,deepspeed)
	$(bin)/python -m pip install --no-build-isolation -e '.[test]'
	touch $@

lint: install
	$(bin)/ruff check .
	$(bin)/ruff format --check .
	$(bin)/mypy

# Two files at a time, as starting processes leaves cores idle; on a GPU one at a time.
test: install
	$(probe); env $$accelerator timeout --foreground 1800 $(bin)/python -m pytest -n 2 --dist loadfile tests/unit tests/kernels
	$(probe); env $$accelerator timeout --foreground 1800 $(bin)/python -m pytest -n 2 --dist loadfile tests/dist tests/e2e
	$(probe); env $$accelerator timeout --foreground 1800 $(bin)/python -m pytest tests/gpu

# Every command that docs/ shows, run as written. Needs 10 GB of free memory.
test-documentation: install
	$(probe); env $$accelerator $(bin)/python -m pytest -m long tests/e2e/test_documented_commands.py

# Commands, workers and schedulers that are killed 20 times; make test does it a few times.
test-kills: install
	$(bin)/python -m pytest -m long tests/e2e/test_killed_preparation.py tests/e2e/test_killed_packing.py \
	  tests/e2e/test_dask_cluster.py

# Every number of ranks continues every other, 20 killed saves, a save of 1 GiB; make test does a few.
test-checkpoints: install
	$(probe); env $$accelerator $(bin)/python -m pytest -m long tests/dist/test_elastic.py tests/dist/test_save_behind.py \
	  tests/e2e/test_world_size.py

# Plans beside whole steps on a card that does nothing, for the presets; make test does one.
test-planning: install
	$(bin)/python -m pytest -m long tests/unit/engine/planning

# Faults drawn at random into real runs (docs/reliability.md): FAULTS=number, SEED=of an earlier draw, KINDS=words of
# their names, RANKS="2 2 4".
faults: install
	$(probe); env $$accelerator $(bin)/python -m pytest -s -m long tests/e2e/test_faults.py

run-folder:
	@[ -n "$$RUN" ] || { echo "error: RUN: expected a folder, found nothing" >&2; exit 2; }

# A new run each time: only what an earlier demo wrote is replaced.
demo: run-folder install
	rm -rf -- "$$RUN/pretrain"
	$(bin)/python -m launch prepare --manifest "$$MANIFEST" --out "$$RUN/archive" --overwrite
	$(bin)/python -m launch shards --archive "$$RUN/archive" --out "$$RUN/shards" --overwrite
	$(probe); env $$accelerator $(bin)/deepspeed --num_gpus $$ranks --master_port $$port launch/pretrain.py \
	  --deepspeed_config "$$CONFIG" --run_dir "$$RUN/pretrain" --set skysense.ep_size=$$ranks \
	  --set "skysense.data.shards=$$RUN/shards" $(if $(STEPS),--set skysense.schedule.steps=$(STEPS))
	$(bin)/python -m launch report "$$RUN/pretrain"

# Small models that learn from two labelled sets, and what their features are worth (docs/learning.md), in less than 30
# minutes on two cores. DATA: the folder that holds ucmerced_hr and ben_s1s2_dense. STEPS: how far each goes; their
# schedules are longer than what is made of them without it.
DATA ?=
learn: learn-ucmerced learn-bigearthnet

learn-ucmerced: install
	$(call prepare_set,ucmerced,ucmerced_hr,,--hr_codec png)
	$(call learn_set,ucmerced,$(or $(STEPS),1500))

learn-bigearthnet: install
	$(call prepare_set,bigearthnet,ben_s1s2_dense,--sensors runs/learn/bigearthnet/sensors.json,)
	$(call learn_set,bigearthnet,$(or $(STEPS),700))

# name, folder in DATA, options of prepare, options of shards
define prepare_set
@[ -n "$(DATA)" ] || { echo "error: expected DATA=FOLDER, which holds $(2); see docs/learning.md" >&2; exit 2; }
$(bin)/python -m launch learning_set $(1) --root "$(DATA)/$(2)" --out runs/learn/$(1)
$(bin)/python -m launch prepare --manifest runs/learn/$(1)/manifest.jsonl --out runs/learn/$(1)/archive --overwrite $(3)
$(bin)/python -m launch shards --archive runs/learn/$(1)/archive --out runs/learn/$(1)/shards --overwrite $(4)
endef

# name, steps of its schedule to make
define learn_set
rm -rf runs/learn/$(1)/pretrain
$(probe); env $$accelerator $(bin)/deepspeed --num_gpus $$ranks --master_port $$port launch/pretrain.py \
  --deepspeed_config ds_configs/learn/$(1).json --stop_at $(2)
$(bin)/python -m launch evaluate --model runs/learn/$(1)/pretrain --data runs/learn/$(1)/shards \
  --labels runs/learn/$(1)/labels.csv --json runs/learn/$(1)/evaluation.json --plot runs/learn/$(1)/evaluation.png
endef
