"""The sharded teacher against a moving average of whole float32 weights."""

import pytest
import torch

from engine.distributed import zero
from engine.distributed.flat_copy import FlatCopy
from engine.distributed.teacher import EmaTeacher
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, batch, start, train_step

MOMENTA = (0.9, 0.99, 0.5, 1.0)


def named(module):
    """Copies of all parameters by local name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def worker(cases):
    """All cases in one start of the processes."""
    zero.init_distributed()
    return {case: exact(*values) for case, values in cases.items()}, bf16(8)


def exact(ep_size, keys):
    """Whether every bit of the teacher is that of the average of the whole weights on this rank,
    and more."""
    engine = start(ep_size, **keys)
    teacher = EmaTeacher(engine, Small(ep_size, Reducer()))
    zero.join_expert_groups(teacher.module)
    # trained in float32, the model's own weights are the master weights
    whole, double = (
        named(engine.module),
        {name: p.double() for name, p in named(engine.module).items()},
    )
    same, distance, travelling = [all_equal(named(teacher.module), whole)], [], []
    for step, momentum in enumerate(MOMENTA):
        train_step(engine, step)
        teacher.update(momentum)
        travelling.append(len(teacher.flat_copy.pending))
        if step % 2:
            teacher.module(*batch(step, *zero.ranks()[:2]))  # waits
        else:
            teacher.wait()
        for name, student in named(engine.module).items():
            whole[name] += (student - whole[name]) * (1 - momentum)
            double[name] = momentum * double[name] + (1 - momentum) * student.double()
        shown = named(teacher.module)
        same.append(all_equal(shown, whole))
        distance.append(max(float((shown[name] - double[name]).abs().max()) for name in shown))
    moved = not all_equal(whole, named(engine.module))
    quiet = not teacher.module.training and not any(
        p.requires_grad for p in teacher.module.parameters()
    )
    overlaps = all(travelling) and not teacher.flat_copy.pending
    return same, max(distance), moved, quiet, overlaps, restored(engine, teacher, ep_size)


def restored(engine, teacher, ep_size):
    """Whether another teacher that takes the state of this one is equal to it, and what it says to
    a wrong state."""
    teacher.module.centre += 1
    other = EmaTeacher(engine, Small(ep_size, Reducer()))
    different = not all_equal(named(other.module), named(teacher.module))
    other.load_state({name: tensor.clone() for name, tensor in teacher.state().items()})
    equal = all_equal(named(other.module), named(teacher.module)) and all_equal(
        other.state(), teacher.state()
    )
    wrong = dict(teacher.state())
    if zero.ranks()[0] == 1:
        del wrong["shard.00000"]
    try:
        other.load_state(wrong)
    except ValueError as error:
        return different, equal, str(error)


def all_equal(first, second):
    """Whether two dictionaries hold the same bits."""
    return first.keys() == second.keys() and all(
        torch.equal(first[name], second[name]) for name in first
    )


CASES = {
    2: {"ep 2": (2, {}), "ep 1": (1, {}), "round robin": (2, {"round_robin_gradients": True})},
    4: {"ep 2": (2, {})},
}


def bf16(steps):
    """How far the shards went, how far they should, and what a bf16 average and the teacher's
    module show."""
    engine = start(2, bf16=True)
    teacher = EmaTeacher(engine, Small(2, Reducer()).to(zero.compute_type(engine)))
    before = [shard.double() for shard in teacher.shards]
    first, naive = named(engine.module), named(engine.module)
    reference = [shard.clone() for shard in before]
    for step in range(steps):
        train_step(engine, step, lr=1e-4)
        teacher.update(0.996)
        for name, student in named(engine.module).items():
            naive[name] += (student - naive[name]) * 0.004
        for ema, student in zip(reference, zero.partitions(engine), strict=True):
            ema += 0.004 * (student.double() - ema)
    moved, expected = (
        [float((x - y).abs().max()) for x, y in zip(shards, before, strict=True)]
        for shards in (teacher.shards, reference)
    )
    teacher.wait()
    scratch = Small(2, Reducer())
    FlatCopy(engine, scratch).fill(teacher.shards)
    mixed = Small(2, Reducer())
    mixed.token.data = mixed.token.data.bfloat16()
    try:
        FlatCopy(engine, mixed)
    except ValueError as error:
        refusal = str(error)
    rounded = {name: p.bfloat16() for name, p in named(scratch).items()}
    stood = all(
        torch.equal(naive[name][large], first[name][large])
        for name, large in ((name, p.abs() > 0.05) for name, p in first.items())
    )
    return moved, expected, stood, all_equal(named(teacher.module), rounded), refusal


@pytest.mark.parametrize("world", CASES)
def test_every_bit_is_that_of_the_whole_average(world):
    for results, (moved, expected, naive_stood_still, shows_rounded, refusal) in run_processes(
        world, "tests.dist.test_teacher:worker", [CASES[world]]
    ):
        assert results.keys() == CASES[world].keys()
        for same, distance, left, quiet, overlaps, (different, equal, message) in results.values():
            assert same == [True] * (len(MOMENTA) + 1)
            assert distance < 1e-6  # the formula m x ema + (1 - m) x student in float64
            assert left and quiet and overlaps and different and equal
            assert message.startswith("rank 1: teacher: expected shard.00000 of shape (")
        # trained in bf16, the teacher follows the master weights where a bf16 average does not move
        # a bit
        torch.testing.assert_close(moved, expected, rtol=0.02, atol=1e-7)
        assert max(moved) > 1e-6 and naive_stood_still and shows_rounded
        assert refusal.startswith(
            "flat copy: expected parameters of one type, found ['torch.bfloat16', 'torch.floa"
        )
