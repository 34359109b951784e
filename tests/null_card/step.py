"""Two whole steps of a run on the null card; prints a record of the second.

Started by ``tests.null_card.run.step`` with the card in front. Real are torch's operators for CUDA
with all that they allocate inside, its allocator, and DeepSpeed; values are all zero. Where the
host reads a number that memory depends on, it gets the number that a plan assumes.
"""

import argparse
import ctypes
import gc
import json
import os
from collections import Counter
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils._python_dispatch import TorchDispatchMode

from data.tiles.classes import NAMES
from engine.planning.rehearsal import MATCHED, full_batch
from models.moe.gate import ASSUMED_IMBALANCE
from tests.null_card.wiring import count_collectives, launch_nothing

PREFIX = "RECORD "
MASKED = ("index", "index_put", "index_put_", "_index_put_impl_")


class Card:
    """The library that stands in for CUDA."""

    def __init__(self):
        self.library = ctypes.CDLL(os.environ["LD_PRELOAD"])
        self.value = ctypes.c_int64.in_dll(self.library, "null_card_value")

    @contextmanager
    def answers(self, value):
        """Small copies to the host bring ``value``."""
        before = self.value.value
        self.value.value = value
        yield
        self.value.value = before


class Answers(TorchDispatchMode):
    """How many elements of a mask are true, which the host asks for."""

    def __init__(self, card):
        super().__init__()
        self.card = card

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        count = self._true(function.overloadpacket.__name__, args)
        if count is None:
            return function(*args, **(kwargs or {}))
        with self.card.answers(count):
            return function(*args, **(kwargs or {}))

    def _true(self, name, args):
        """Number of true elements, or None if the operator asks for none."""
        if name == "nonzero":
            return int(MATCHED * args[0].numel())
        if name not in MASKED:
            return None
        for index in args[1]:
            if index is not None and index.dtype == torch.bool:
                if name != "index" and args[2].dim():
                    return len(args[2])
                return int(MATCHED * index.numel())
        return None


def assume_load(card):
    """Let the fullest expert have the load that a plan assumes."""
    from models.moe import gate

    largest = gate._largest

    def assumed(counts, tokens, group):
        with card.answers(int(ASSUMED_IMBALANCE * tokens / len(counts))):
            return largest(counts, tokens, group)

    gate._largest = assumed


def entropy(x):
    """Torch compiles its own for the card, where the card's compiler needs one."""
    return -(x * x.log())


def build(config):
    """The step of a run on the card."""
    from engine.distributed.collectives import DistributedReducer
    from engine.training.assemble import start_engine
    from engine.training.models import build_pair
    from engine.training.objective import Objective
    from engine.training.schedules import Schedules
    from engine.training.step import Step

    device = torch.device("cuda", 0)
    settings = config.settings
    reducer = DistributedReducer()
    with device:
        pair = build_pair(settings, reducer, empty=True)
    ema = start_engine(config, pair, device)
    text = torch.empty(len(NAMES), settings.model.text_width, device=device)
    objective = Objective(
        settings.loss,
        student=ema.engine.module,
        teacher=pair.teacher,
        text=text,
        reducer=reducer,
    )
    return Step(
        engine=ema.engine,
        ema=ema,
        objective=objective,
        schedules=Schedules(settings, config.optimizer),
        reducer=reducer,
        device=device,
        seed=settings.seed,
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config")
    parser.add_argument("world", type=int)
    parser.add_argument("overrides", nargs="*")
    options = parser.parse_intermixed_args()
    card = Card()
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.special.entr = entropy
    dist.init_process_group("fake", rank=0, world_size=options.world, store=FakeStore())
    sent = Counter()
    count_collectives(sent)
    import deepspeed

    deepspeed.init_distributed("nccl", auto_mpi_discovery=False, verbose=False)
    torch.cuda.set_device(0)
    from engine.config.load import load
    from engine.training import step as step_module
    from engine.training.trainer import prepare

    config = load(options.config, options.overrides, world_size=options.world)
    prepare(config.settings)
    launch_nothing()
    assume_load(card)
    step = build(config)
    gc.collect()
    torch.cuda.empty_cache()
    parts = []

    @contextmanager
    def part(name):
        torch.cuda.reset_peak_memory_stats()
        yield
        parts.append(
            {
                "part": name,
                "allocated": torch.cuda.max_memory_allocated(),
                "after": torch.cuda.memory_allocated(),
                "reserved": torch.cuda.memory_reserved(),
            }
        )

    step_module.part = part
    size = config.batch_size // options.world
    with Answers(card):
        for number in range(2):
            parts.clear()
            sent.clear()
            report = step(full_batch(number, size, config))
    assert report.applied
    record = {
        "reserved": torch.cuda.memory_stats()["reserved_bytes.all.peak"],
        "parts": parts,
        "sent": {f"{name} {ranks}": size for (name, ranks), size in sent.items()},
    }
    print(PREFIX + json.dumps(record), flush=True)
    os._exit(0)  # libraries would look for the card that is not there


if __name__ == "__main__":
    main()
