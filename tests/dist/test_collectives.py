"""The reducer and the joint errors over real processes, against the same on the data of all ranks
in one process."""

import pytest
import torch

from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer, collect, on_first_rank, together
from engine.errors import ConfigError, RankError
from tests.dist.processes import run_processes

WORLD = 2
KINDS = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}


def data(rank, dtype=torch.float64):
    """A transposed, hence not contiguous, matrix and a scalar of one rank."""
    generator = torch.Generator().manual_seed(rank)
    return (8 * torch.randn(3, 4, generator=generator)).to(dtype).T, torch.tensor(rank + 0.5).to(
        dtype
    )


def reductions():
    """Every method on this rank's data, and whether the arguments kept their values."""
    zero.init_distributed()
    reducer = DistributedReducer()
    rank, found = zero.ranks()[0], {}
    for name, dtype in KINDS.items():
        matrix, scalar = data(rank, dtype)
        found[name] = (
            reducer.sum(matrix),
            reducer.sum(scalar),
            reducer.max(matrix),
            reducer.max(scalar),
            reducer.gather(matrix),
            all(map(torch.equal, (matrix, scalar), data(rank, dtype))),
        )
    found["bool"] = reducer.gather(data(rank)[0] > 0)
    x = data(rank)[0].clone().requires_grad_()
    outputs = reducer.sum(x), reducer.max(x), reducer.gather(x)
    found["without gradient"] = not any(output.requires_grad for output in outputs)
    ((rank + 1) * reducer.sum_with_grad(x) ** 2).sum().backward()  # the loss differs by rank
    found["grad"] = x.grad
    values, mask = data(rank)[0], data(rank)[0] > 100 * rank  # rank 1 has no valid entry
    found["mean"] = reducer.mean(values, mask)
    found["joint"] = joint(rank)
    return found


def joint(rank):
    """What each rank gets of joint actions that go well or fail on one rank."""

    def fail_on(bad, kind):
        if rank == bad:
            raise kind("no space,\n  two lines")
        return rank

    found = [
        together(lambda: fail_on(-1, ConfigError)),
        collect(lambda: fail_on(-1, ConfigError)),
        on_first_rank(lambda: fail_on(1, ConfigError)),
    ]
    for action in (together, collect, on_first_rank):
        for bad, kind in ((1, OSError), (0, ConfigError)):
            try:
                found.append(action(lambda bad=bad, kind=kind: fail_on(bad, kind)))
            except RankError as error:
                found.append((str(error), type(error.__cause__).__name__))
    return found


def test_reductions_equal_one_process():
    ranks = run_processes(WORLD, "tests.dist.test_collectives:reductions")
    for name, dtype in KINDS.items():
        matrices, scalars = zip(*(data(rank, dtype) for rank in range(WORLD)))
        for found in (rank[name] for rank in ranks):
            expected = (
                sum(matrices),
                sum(scalars),
                torch.maximum(*matrices),
                torch.maximum(*scalars),
                torch.cat(matrices),
            )
            for x, y in zip(found, expected):
                assert torch.equal(x, y) and x.dtype == dtype
            assert found[-1]
    total = sum(data(rank)[0] for rank in range(WORLD))
    positive = data(0)[0][data(0)[0] > 0]
    for found in ranks:
        assert torch.equal(found["bool"], torch.cat([data(other)[0] > 0 for other in range(WORLD)]))
        assert found["without gradient"]
        torch.testing.assert_close(found["grad"], (1 + 2) * 2 * total)
    torch.testing.assert_close(sum(found["mean"] for found in ranks) / WORLD, positive.mean())
    for rank, found in enumerate(ranks):
        good, failed = found["joint"][:3], found["joint"][3:]
        assert good == [rank, [0, 1], 0]
        on_1, on_0 = (
            ("rank 1: OSError: no space, two lines", "OSError"),
            ("no space, two lines", "ConfigError"),
        )
        other_1, other_0 = (on_1[0], "NoneType"), (on_0[0], "NoneType")
        both = [other_1, on_0] if rank == 0 else [on_1, other_0]
        assert failed == both + both + [0, both[1]]  # on_first_rank never asks rank 1


def test_without_processes_joint_actions_are_plain_calls():
    assert together(lambda: 3) == on_first_rank(lambda: 3) == 3 and collect(lambda: 3) == [3]
    with pytest.raises(RankError, match="^KeyError: 'x'$"):
        together(lambda: {}["x"])
