"""Clipping, betas and eps that differ from the checkpoint's are those of the next step."""

import math

import torch

from engine.checkpoint.load import latest, load
from engine.distributed import zero
from engine.distributed.teacher import EmaTeacher
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, publish, start, train_step

MODULE = "tests.dist.test_changed_optimizer"
CLIP = 0.01
BETAS = (0.5, 0.75)
EPS = 0.1
RATE = 1e-2  # of ``train_step``


def open_run(**settings):
    """Engine and teacher."""
    engine = start(2, **settings)
    return engine, EmaTeacher(engine, Small(2, Reducer()))


def families(engine) -> dict[str, list[torch.Tensor]]:
    """Master weights and moments of this rank in float64."""
    found = {
        "master": zero.partitions(engine),
        "mean": zero.moments(engine, "exp_avg"),
        "square": zero.moments(engine, "exp_avg_sq"),
    }
    return {name: [x.double() for x in shards] for name, shards in found.items()}


def worker(folder):
    """Two steps, a checkpoint, and the third step with other settings: state before and after."""
    zero.init_distributed()
    engine, teacher = open_run()
    for step in range(2):
        train_step(engine, step)
    publish(folder, 2, engine, teacher)
    engine, teacher = open_run(clip=CLIP, betas=BETAS, eps=EPS)
    load(latest(folder), engine, teacher)
    before = families(engine)
    train_step(engine, 2)
    decays = [group["weight_decay"] for group in engine.optimizer.param_groups]
    return before, families(engine), decays


def test_the_next_step_follows_the_settings_of_this_run(tmp_path):
    """Against the formulas of AdamW in float64, with the gradient that the mean has taken in."""
    squared_norm = 0.0
    for before, after, decays in run_processes(2, f"{MODULE}:worker", [str(tmp_path)]):
        for group, decay in enumerate(decays):
            mean, square = before["mean"][group], before["square"][group]
            gradient = (after["mean"][group] - BETAS[0] * mean) / (1 - BETAS[0])
            squared_norm += gradient.square().sum().item()
            square = BETAS[1] * square + (1 - BETAS[1]) * gradient.square()
            torch.testing.assert_close(after["square"][group], square, rtol=1e-4, atol=1e-12)
            # Of three steps; the corrections of both moments go by the number of steps.
            corrected = after["mean"][group] / (1 - BETAS[0] ** 3)
            scale = (square / (1 - BETAS[1] ** 3)).sqrt() + EPS
            weights = before["master"][group] * (1 - RATE * decay) - RATE * corrected / scale
            torch.testing.assert_close(after["master"][group], weights, rtol=1e-5, atol=1e-7)
    # Each weight lies in one shard of one rank, so this is the norm of the clipped gradient.
    assert math.isclose(math.sqrt(squared_norm), CLIP, rel_tol=1e-3)
