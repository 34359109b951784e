"""A step that must not be applied changes nothing on any rank, and the next one goes on."""

import math

import torch

from engine.config.load import load
from engine.distributed import zero
from engine.training.assemble import assemble
from engine.training.inputs import open_dataset
from engine.training.trouble import INPUT
from tests.commands import TINY
from tests.dist.processes import run_processes

NAN_PIXEL = 1  # step whose batch has a valid pixel that is not a number, on rank 1
NAN_GRADIENT = 2  # step with a finite loss whose gradient is not finite, on rank 1


def state(step):
    """Everything that a step may change, copied."""
    step.ema.wait()
    tensors = [
        *zero.partitions(step.engine),
        *step.ema.shards,
        step.student.trunk.context.prototypes,
        *step.student.parameters(),
        *step.teacher.parameters(),
    ]
    return [tensor.detach().clone() for tensor in tensors]


def same(a, b) -> bool:
    """Bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def to_nan(tensor):
    return tensor * torch.nan


def spoil_pixels(batch):
    """Make every pixel of a batch NaN."""
    for views in batch.views.values():
        for name, image in views.images.items():
            views.images[name] = to_nan(image)


def worker(shards):
    """Four steps, of which two must be skipped, and one whose prototypes are not finite."""
    device = zero.init_distributed()
    rank, world_size, _ = zero.ranks()
    config = load(TINY, [f"skysense.data.shards={shards}"], world_size=world_size)
    run = assemble(config, open_dataset(config.settings), device)
    step = run.step
    batches = list(run.batches(5))
    results = []
    for number, batch in enumerate(batches[:4]):
        hook = None
        if rank == 1 and number == NAN_PIXEL:
            spoil_pixels(batch)
        if rank == 1 and number == NAN_GRADIENT:
            hook = step.student.text_projection.weight.register_hook(to_nan)
        before = state(step)
        report = step(batch)
        if hook is not None:
            hook.remove()
        unchanged = same(before, state(step))
        if number == NAN_PIXEL:
            assert [(trouble.rank, trouble.place) for trouble in report.trouble] == [(1, INPUT)]
            assert report.trouble[0].terms and report.trouble[0].order == 0
        else:
            assert not report.trouble
        results.append((report.applied, unchanged, report.skipped_keys == batch.keys))
    return results, *refused_prototypes(step, batches[4])


def refused_prototypes(step, batch):
    """What a step says whose prototypes are not finite, and whether it kept the old ones."""
    context = step.student.trunk.context
    context.momentum = math.nan
    before = context.prototypes.clone()
    try:
        step(batch)
    except FloatingPointError as error:
        return str(error), torch.equal(context.prototypes, before)


def test_a_nan_on_one_rank_changes_nothing_on_any(shards):
    outcomes = run_processes(2, "tests.dist.test_step:worker", (str(shards),))
    for rank, (results, refusal, kept) in enumerate(outcomes):
        applied, unchanged, recorded = zip(*results)
        assert applied == (True, False, False, True)
        assert unchanged == (False, True, True, False)
        # the samples of the rank whose input it was; with a finite loss nobody knows the rank
        assert recorded == (False, rank == 1, True, False)
        assert refusal.startswith("geo context: expected finite new prototypes")
        assert kept
