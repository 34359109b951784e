"""The sharded teacher against a moving average of full float32 weights."""

from dataclasses import dataclass

import pytest
import torch

from engine.distributed import zero
from engine.distributed.flat_copy import FlatCopy
from engine.distributed.teacher import EmaTeacher
from models.reducer import Reducer
from tests.dist.processes import run_processes
from tests.dist.small import Small, batch, start, train_step

MOMENTA = (0.9, 0.99, 0.5, 1.0)
BF16_STEPS = 8
BF16_MOMENTUM = 0.996

# ranks -> case -> ep_size and further keys of DeepSpeed's configuration
CASES = {
    2: {"ep 2": (2, {}), "ep 1": (1, {}), "round robin": (2, {"round_robin_gradients": True})},
    4: {"ep 2": (2, {})},
}


@dataclass
class Exact:
    """What a rank sees of a teacher in float32."""

    same: list[bool]  # before and after each step: whether every bit is that of the full average
    distance: float  # from the formula m x ema + (1 - m) x student in float64
    moved: bool  # whether the average differs from the student
    quiet: bool  # whether the module is in eval mode and without gradients
    overlaps: bool  # whether every update left an exchange under way, and none is left at the end


@dataclass
class Bf16:
    """What a rank sees of a teacher in bf16."""

    moved: list[float]  # how far the shards went
    expected: list[float]  # how far they should go
    naive_stood: bool  # whether the larger weights of a bf16 average did not move at all
    shows_rounded: bool  # whether the module shows the shards, rounded
    refusal: str  # of a module with parameters of two types


def named(module):
    """Copies of all parameters by local name."""
    return {name: p.detach().clone() for name, p in module.named_parameters()}


def all_equal(first, second) -> bool:
    """Whether two dictionaries hold the same bits."""
    if first.keys() != second.keys():
        return False
    return all(torch.equal(first[name], second[name]) for name in first)


def worker(cases):
    """All cases in one start of the processes."""
    zero.init_distributed()
    results = {}
    for case, (ep_size, keys) in cases.items():
        engine = start(ep_size, **keys)
        teacher = EmaTeacher(engine, Small(ep_size, Reducer()))
        zero.join_expert_groups(teacher.module)
        exact = follow(engine, teacher)
        results[case] = exact, restore(engine, teacher, ep_size)
    return results, bf16()


def follow(engine, teacher) -> Exact:
    """Train, and average the full weights beside the teacher."""
    # Trained in float32, the model's own weights are the master weights.
    full = named(engine.module)
    double = {name: weight.double() for name, weight in full.items()}
    same = [all_equal(named(teacher.module), full)]
    distances = []
    under_way = []
    for step, momentum in enumerate(MOMENTA):
        train_step(engine, step)
        teacher.update(momentum)
        under_way.append(len(teacher.flat_copy.pending) > 0)
        if step % 2 == 1:
            rank, world_size, _ = zero.ranks()
            teacher.module(*batch(step, rank, world_size))  # waits
        else:
            teacher.wait()
        for name, student in named(engine.module).items():
            full[name] += (student - full[name]) * (1 - momentum)
            double[name] = momentum * double[name] + (1 - momentum) * student.double()
        shown = named(teacher.module)
        same.append(all_equal(shown, full))
        for name, weight in shown.items():
            distances.append(float((weight - double[name]).abs().max()))
    learning = [p for p in teacher.module.parameters() if p.requires_grad]
    return Exact(
        same=same,
        distance=max(distances),
        moved=not all_equal(full, named(engine.module)),
        quiet=not teacher.module.training and not learning,
        overlaps=all(under_way) and not teacher.flat_copy.pending,
    )


def restore(engine, teacher, ep_size) -> bool:
    """Whether another teacher that takes the shards of one shows the same weights."""
    other = EmaTeacher(engine, Small(ep_size, Reducer()))
    different = not all_equal(named(other.module), named(teacher.module))
    for shard, new in zip(other.shards, teacher.shards, strict=True):
        shard.copy_(new)
    other.show()
    return different and all_equal(named(other.module), named(teacher.module))


def message(action) -> str:
    """The line of a ValueError; empty if there is none."""
    try:
        action()
    except ValueError as error:
        return str(error)
    return ""


def bf16() -> Bf16:
    """Train in bf16, with a float64 average and a bf16 average beside the teacher."""
    engine = start(2, bf16=True)
    teacher = EmaTeacher(engine, Small(2, Reducer()).to(zero.compute_type(engine)))
    before = [shard.double() for shard in teacher.shards]
    reference = [shard.clone() for shard in before]
    first = named(engine.module)
    naive = named(engine.module)
    for step in range(BF16_STEPS):
        train_step(engine, step, lr=1e-4)
        teacher.update(BF16_MOMENTUM)
        for name, student in named(engine.module).items():
            naive[name] += (student - naive[name]) * (1 - BF16_MOMENTUM)
        for ema, student in zip(reference, zero.partitions(engine), strict=True):
            ema += (1 - BF16_MOMENTUM) * (student.double() - ema)
    stood = []
    for name, weight in first.items():
        large = weight.abs() > 0.05
        stood.append(torch.equal(naive[name][large], weight[large]))

    teacher.wait()
    scratch = Small(2, Reducer())
    FlatCopy(engine, scratch).fill(teacher.shards)
    rounded = {name: weight.bfloat16() for name, weight in named(scratch).items()}
    mixed = Small(2, Reducer())
    mixed.token.data = mixed.token.data.bfloat16()
    return Bf16(
        moved=distances(teacher.shards, before),
        expected=distances(reference, before),
        naive_stood=all(stood),
        shows_rounded=all_equal(named(teacher.module), rounded),
        refusal=message(lambda: FlatCopy(engine, mixed)),
    )


def distances(shards, before) -> list[float]:
    """How far each shard went."""
    return [float((x - y).abs().max()) for x, y in zip(shards, before, strict=True)]


@pytest.mark.parametrize("world", CASES)
def test_every_bit_is_that_of_the_full_average(world):
    cases = CASES[world]
    for results, low in run_processes(world, "tests.dist.test_teacher:worker", [cases]):
        assert results.keys() == cases.keys()
        for exact, restored in results.values():
            assert exact.same == [True] * (len(MOMENTA) + 1)
            assert exact.distance < 1e-6
            assert exact.moved
            assert exact.quiet
            assert exact.overlaps
            assert restored
        # The teacher follows the master weights where a bf16 average does not move a bit.
        torch.testing.assert_close(low.moved, low.expected, rtol=0.02, atol=1e-7)
        assert max(low.moved) > 1e-6
        assert low.naive_stood
        assert low.shows_rounded
        expected = (
            "flat copy: expected parameters of one type, found ['torch.bfloat16', 'torch.floa"
        )
        assert low.refusal.startswith(expected)
