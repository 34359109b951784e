"""A step that must not be applied leaves everything as it was, on every rank; the next one goes on."""

from functools import partial

import torch

from data.shards.dataset import ShardDataset
from data.stream.batches import open_stream
from engine.config.load import load
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer
from engine.distributed.teacher import EmaTeacher
from engine.training.build import (
    build_models,
    embed_classes,
    is_last_layer,
    is_no_decay,
    share_context,
)
from engine.training.objective import Objective
from engine.training.schedules import Schedules
from engine.training.step import Step
from tests.commands import TINY
from tests.dist.processes import run_processes


def state(step):
    """Everything that a step may change, copied."""
    step.ema.wait()
    tensors = (
        zero.partitions(step.engine) + step.ema.shards + [step.student.trunk.context.prototypes]
    )
    tensors += list(step.student.parameters()) + list(step.teacher.parameters())
    return [tensor.detach().clone() for tensor in tensors]


def same(a, b) -> bool:
    """Bit for bit."""
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def worker(shards):
    """Good step, step with a NaN loss on rank 1, step with NaN gradients on rank 1 alone, good
    step, step whose prototypes are not finite."""
    zero.init_distributed()
    rank, world, _ = zero.ranks()
    config = load(TINY, [f"skysense.data.shards={shards}"], world_size=world)
    settings, reducer = config.settings, DistributedReducer()
    student, teacher = build_models(settings, reducer)
    optimizer = config.deepspeed["optimizer"]["params"]
    groups = zero.parameter_groups(
        student,
        weight_decay=optimizer["weight_decay"],
        is_no_decay=partial(is_no_decay, spec=student.spec),
        is_last_layer=is_last_layer,
    )
    engine = zero.initialize(student, config.deepspeed, groups)
    zero.join_expert_groups(teacher)
    share_context(engine.module, teacher)
    dataset = ShardDataset.open(settings.data.shards)
    text, _ = embed_classes(settings, dataset)
    objective = Objective(settings.loss, engine.module, teacher, text, reducer)
    step = Step(
        engine,
        EmaTeacher(engine, teacher),
        teacher,
        objective,
        Schedules(settings, optimizer),
        reducer,
        torch.device("cpu"),
    )
    batches = list(
        open_stream(
            dataset,
            settings.data,
            seed=0,
            batch_size=config.deepspeed["train_batch_size"],
            steps=range(5),
            rank=rank,
            world_size=world,
        )
    )
    results = []
    for k, batch in enumerate(batches[:4]):
        hook = None
        if rank == 1 and k == 1:  # a valid pixel that is not a number
            for views in batch.views.values():
                for name, image in views.images.items():
                    views.images[name] = image * torch.nan
        if rank == 1 and k == 2:  # a finite loss with a gradient that is not
            hook = engine.module.text_projection.weight.register_hook(
                lambda gradient: gradient * torch.nan
            )
        before = state(step)
        report = step(batch)
        if hook is not None:
            hook.remove()
        results.append(
            (report.applied, same(before, state(step)), report.skipped_keys == batch.keys)
        )
    context = step.student.trunk.context
    context.momentum, before = float("nan"), context.prototypes.clone()
    try:
        step(batches[4])
    except FloatingPointError as error:
        refusal = str(error)
    return results, refusal, torch.equal(context.prototypes, before)


def test_a_nan_on_one_rank_changes_nothing_on_any(shards):
    for results, refusal, kept in run_processes(2, "tests.dist.test_step:worker", (str(shards),)):
        applied, unchanged, recorded = zip(*results)
        assert applied == (True, False, False, True)
        assert unchanged == (False, True, True, False)
        assert recorded == (False, True, True, False)
        assert refusal.startswith("geo context: expected finite new prototypes") and kept
