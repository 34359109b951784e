"""What real ranks exchange in a step, counted beside torch's functions, equals the plan's bytes."""

from collections import Counter

import pytest
import torch
import torch.distributed as dist

from engine.config.load import load
from engine.distributed import zero
from engine.planning.cards import card_of
from engine.planning.making import plan
from engine.planning.plan import Setting
from engine.training.assemble import assemble
from engine.training.inputs import open_dataset
from tests.commands import TINY
from tests.dist.processes import run_processes

FUNCTIONS = ("all_reduce", "all_gather_into_tensor", "all_to_all_single", "reduce")
SAMPLES = 2  # a rank
TOLERANCE = 0.01


def overrides(world):
    """The run on ``world`` ranks, each with the same work."""
    return [f"train_batch_size={SAMPLES * world}", "skysense.ep_size=1"]


def count_bytes(sent):
    """Add the bytes of each exchange between several ranks to ``sent``."""
    for name in FUNCTIONS:
        setattr(dist, name, counted(getattr(dist, name), sent))


def counted(function, sent):
    """``function``, which adds the bytes of its largest tensor to ``sent`` first."""

    def wrapper(*args, group=None, **options):
        values = [*args, *options.values()]
        sizes = [value.nbytes for value in values if isinstance(value, torch.Tensor)]
        if dist.get_world_size(group) > 1:
            sent[function.__name__] += max(sizes)
        return function(*args, group=group, **options)

    return wrapper


def worker(shards):
    """Bytes of this rank's second step."""
    sent = Counter()
    count_bytes(sent)  # before DeepSpeed keeps references to the functions
    device = zero.init_distributed()
    world_size = zero.ranks().world_size
    config = load(
        TINY, [f"skysense.data.shards={shards}", *overrides(world_size)], world_size=world_size
    )
    run = assemble(config, open_dataset(config.settings), device)
    first, second = run.batches(2)
    run.step(first)
    sent.clear()
    run.step(second)
    return sum(sent.values())


@pytest.mark.parametrize("world", [1, 2, 4])
def test_a_step_exchanges_the_bytes_of_the_plan(shards, world):
    measured = run_processes(world, "tests.dist.test_planned_bytes:worker", (str(shards),))
    setting = Setting(path=TINY, world_size=world, card=card_of("h100"))
    planned = plan(setting.changed(*overrides(world)))
    expected = sum(exchange.size for exchange in planned.traffic)
    assert measured == pytest.approx([expected] * world, rel=TOLERANCE)
