"""The reducer and joint errors over real processes, compared with one process that has all data."""

import pytest
import torch

from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer, collect, on_first_rank, together
from engine.errors import ConfigError, RankError
from tests.dist.processes import run_processes

WORLD = 2
TYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
}
MESSAGE = "no space,\n  two lines"
LINE = "no space, two lines"


def matrix_of(rank, dtype=torch.float64):
    """A transposed, hence not contiguous, matrix of one rank."""
    generator = torch.Generator().manual_seed(rank)
    return (8 * torch.randn(3, 4, generator=generator)).to(dtype).T


def scalar_of(rank, dtype=torch.float64):
    """A scalar of one rank."""
    return torch.tensor(rank + 0.5).to(dtype)


def reductions():
    """Every method on this rank's data, and whether the arguments kept their values."""
    zero.init_distributed()
    reducer = DistributedReducer()
    rank = zero.ranks().rank
    results = {}
    for name, dtype in TYPES.items():
        matrix = matrix_of(rank, dtype)
        scalar = scalar_of(rank, dtype)
        results[name] = [
            reducer.sum(matrix),
            reducer.sum(scalar),
            reducer.max(matrix),
            reducer.max(scalar),
            reducer.gather(matrix),
        ]
        untouched = torch.equal(matrix, matrix_of(rank, dtype))
        results[name, "untouched"] = untouched and torch.equal(scalar, scalar_of(rank, dtype))
    matrix = matrix_of(rank)
    results["bool"] = reducer.gather(matrix > 0)
    x = matrix.clone().requires_grad_()
    outputs = reducer.sum(x), reducer.max(x), reducer.gather(x)
    results["without gradient"] = not any(output.requires_grad for output in outputs)
    ((rank + 1) * reducer.sum_with_grad(x) ** 2).sum().backward()  # the loss differs by rank
    results["grad"] = x.grad
    results["mean"] = reducer.mean(matrix, matrix > 100 * rank)  # rank 1 has no valid entry
    results["succeeded"] = succeeded(rank)
    results["failed"] = failed(rank)
    return results


def succeeded(rank):
    """What each rank gets of joint actions that go well."""
    return [together(lambda: rank), collect(lambda: rank), on_first_rank(lambda: rank)]


def failed(rank):
    """What each rank gets of joint actions that fail on one rank, by action and failing rank."""

    def fail_on(bad, kind):
        if rank == bad:
            raise kind(MESSAGE)
        return rank

    outcomes = {}
    for action in (together, collect, on_first_rank):
        for bad, kind in ((1, OSError), (0, ConfigError)):
            key = action.__name__, bad
            try:
                outcomes[key] = action(lambda bad=bad, kind=kind: fail_on(bad, kind))
            except RankError as error:
                outcomes[key] = str(error), type(error.__cause__).__name__
    return outcomes


@pytest.fixture(scope="module")
def ranks():
    """The results of both ranks."""
    return run_processes(WORLD, "tests.dist.test_collectives:reductions")


def test_reductions_equal_one_process(ranks):
    for name, dtype in TYPES.items():
        matrices = [matrix_of(rank, dtype) for rank in range(WORLD)]
        scalars = [scalar_of(rank, dtype) for rank in range(WORLD)]
        expected = [
            sum(matrices),
            sum(scalars),
            torch.maximum(*matrices),
            torch.maximum(*scalars),
            torch.cat(matrices),
        ]
        for results in ranks:
            assert results[name, "untouched"]
            for x, y in zip(results[name], expected, strict=True):
                assert torch.equal(x, y)
                assert x.dtype == dtype


def test_gradients_and_means_are_those_of_the_global_batch(ranks):
    matrices = [matrix_of(rank) for rank in range(WORLD)]
    total = sum(matrices)
    for results in ranks:
        assert torch.equal(results["bool"], torch.cat([matrix > 0 for matrix in matrices]))
        assert results["without gradient"]
        torch.testing.assert_close(results["grad"], (1 + 2) * 2 * total)
    mean = sum(results["mean"] for results in ranks) / WORLD
    torch.testing.assert_close(mean, matrices[0][matrices[0] > 0].mean())


def test_a_failure_on_one_rank_is_raised_on_all(ranks):
    for rank, results in enumerate(ranks):
        assert results["succeeded"] == [rank, [0, 1], 0]
        cause = {0: "NoneType", 1: "NoneType"}  # by the rank that fails; others have no cause
        cause[rank] = ("ConfigError", "OSError")[rank]
        on_1 = f"rank 1: OSError: {LINE}", cause[1]
        on_0 = LINE, cause[0]
        assert results["failed"] == {
            ("together", 1): on_1,
            ("together", 0): on_0,
            ("collect", 1): on_1,
            ("collect", 0): on_0,
            ("on_first_rank", 1): 0,  # rank 1 is never asked
            ("on_first_rank", 0): on_0,
        }


def test_without_processes_joint_actions_are_plain_calls():
    assert together(lambda: 3) == 3
    assert on_first_rank(lambda: 3) == 3
    assert collect(lambda: 3) == [3]
    with pytest.raises(RankError, match="^KeyError: 'x'$"):
        together(lambda: {}["x"])
