"""A checkpoint continues on other numbers of ranks, another ``ep_size`` and other groups."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from engine.checkpoint.families import StoredWeights
from engine.checkpoint.load import load
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer
from engine.distributed.pieces import FAMILIES
from engine.distributed.teacher import EmaTeacher
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, batch, publish, start

MODULE = "tests.dist.test_elastic"
BEFORE = 3  # steps before the checkpoint
AFTER = 10  # steps after it whose losses are compared

# world size, ep_size, elements of a group. The limit of 100 cuts the groups in three and more.
WHOLE = 2**27
CUT = 100
MATRIX = [
    (1, 1, WHOLE),
    (2, 1, WHOLE),
    (2, 2, WHOLE),
    (4, 1, WHOLE),
    (4, 2, WHOLE),
    (4, 4, WHOLE),
    (2, 2, CUT),
    (4, 2, CUT),
]
FEW = [(1, 1, WHOLE), (2, 2, CUT), (4, 2, WHOLE)]


def open_run(ep_size, limit):
    """Engine and teacher, not in step with each other."""
    zero.GROUP_LIMIT = limit
    engine = start(ep_size)
    return engine, EmaTeacher(engine, Small(ep_size, Reducer()))


def train(engine, teacher, steps):
    """Make steps; the losses of the global batch."""
    reducer = DistributedReducer()
    losses = []
    for step in steps:
        zero.set_schedule(engine, lr=1e-2, weight_decay=0.1, last_layer_lr=1e-2)
        loss = engine(*batch(step, zero.ranks().rank, reducer.world_size))
        engine.backward(loss)
        engine.step()
        teacher.update(0.9)
        teacher.module.centre.add_(engine.module.centre, alpha=0.5)
        losses.append(reducer.sum(loss.detach()).item() / reducer.world_size)
    return losses


def place(root, case):
    """The run folder of a case."""
    return Path(root, "-".join(map(str, case)))


def first_life(root, cases):
    """For each case: train, save, and train on; the losses of the last part."""
    zero.init_distributed()
    losses = []
    for case in cases:
        run = open_run(*case[1:])
        train(*run, range(BEFORE))
        publish(place(root, case), BEFORE, *run)
        losses.append(train(*run, range(BEFORE, BEFORE + AFTER)))
    return losses


def second_life(root, cases, sources):
    """For each case, continue from the checkpoint of each source; its losses.

    What was loaded is saved again at once.
    """
    zero.init_distributed()
    losses = {}
    for case in cases:
        for source in sources:
            run = open_run(*case[1:])
            train(*run, range(BEFORE))  # what must be overwritten
            load(checkpoint(root, source), *run)
            publish(place(root, case) / place("again", source), BEFORE, *run)
            losses[case, source] = train(*run, range(BEFORE, BEFORE + AFTER))
    return losses


def checkpoint(root, case):
    """The checkpoint of a case."""
    return place(root, case) / f"checkpoints/step-{BEFORE:08d}"


def by_world(cases):
    """World size -> its cases."""
    worlds = {}
    for case in cases:
        worlds.setdefault(case[0], []).append(case)
    return worlds


def check(root, cases):
    """Save each case and continue it as each of all."""
    whole = {}
    for world, of_world in by_world(cases).items():
        results = run_processes(world, f"{MODULE}:first_life", [root, of_world], timeout=600)
        whole |= zip(of_world, results[0], strict=True)
    for world, of_world in by_world(cases).items():
        arguments = [root, of_world, cases]
        results = run_processes(world, f"{MODULE}:second_life", arguments, timeout=1800)
        for (case, source), losses in results[0].items():
            expected = pytest.approx(whole[source], rel=1e-5, abs=0)
            assert losses == expected, f"{source} continued as {case}"
            again = place(root, case) / place("again", source)
            same_weights(checkpoint(root, source), again / f"checkpoints/step-{BEFORE:08d}")


def same_weights(folder, again):
    """Both hold the same bits of every parameter and buffer, however they are cut."""
    for family in FAMILIES:
        equal(StoredWeights(folder, family), StoredWeights(again, family))
    equal(load_file(folder / "buffers.safetensors"), load_file(again / "buffers.safetensors"))


def equal(expected, found):
    """Two dictionaries of tensors hold the same bits."""
    assert expected.keys() == found.keys()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_other_ranks_and_groups_continue(tmp_path):
    check(str(tmp_path), FEW)


@pytest.mark.long
def test_every_number_of_ranks_continues_every_other(tmp_path):
    check(str(tmp_path), MATRIX)
