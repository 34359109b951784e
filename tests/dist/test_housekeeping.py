"""In a real run all ranks collect garbage after the same steps, and at no other time."""

import gc

from engine.config.load import load
from engine.distributed import zero
from engine.resilience.signals import Signals
from engine.training.step import Step
from engine.training.trainer import train
from tests.commands import TINY
from tests.dist.processes import run_processes


def worker(shards, run_dir):
    """Steps after which a collection began, those before the first step left out; and the
    collector's state later."""
    device = zero.init_distributed()
    config = load(
        TINY,
        [
            f"skysense.data.shards={shards}",
            f"skysense.run_dir={run_dir}",
            "skysense.collect_garbage_every=2",
        ],
        world_size=zero.ranks().world_size,
    )
    made = []
    collected = []
    original = Step.__call__

    def noted(step, batch):
        report = original(step, batch)
        made.append(batch.step)
        return report

    def began(phase, info):
        if phase == "start" and made and len(made) < config.settings.schedule.steps:
            collected.append((made[-1], info["generation"]))

    Step.__call__ = noted
    gc.callbacks.append(began)
    code = train(config, device, Signals())
    gc.callbacks.remove(began)
    return code, made, collected, gc.isenabled(), gc.get_freeze_count()


def test_all_ranks_collect_after_the_same_steps(shards, tmp_path):
    for code, made, collected, automatic, frozen in run_processes(
        2, "tests.dist.test_housekeeping:worker", (str(shards), str(tmp_path / "run"))
    ):
        assert code == 0 and made == list(range(6))
        # the youngest may still be collected between the end of the first step and the start of the
        # schedule
        assert sorted({step for step, generation in collected if generation == 2}) == [0, 2, 4]
        assert all(step == 0 for step, generation in collected if generation < 2)
        assert automatic and frozen == 0
