"""DeepSpeed's mixture layer with Tutel's dispatch, against the same layer with its own, on two gloo
processes."""

from itertools import product

import pytest
import torch
import torch.distributed as dist

from models.moe.layer import MoE, canonical_names
from models.spec import MoESpec
from tests.dist.processes import run_processes
from tests.dist.test_moe_parallel import (
    CASES,
    EXPERTS,
    HIDDEN,
    WIDTH,
    GlooReducer,
    batch,
    parameters,
)
from tests.unit.layouts import run_moe

pytest.importorskip(
    "tutel.moe",
    reason="needs tutel (docs/backends.md says how to install it)",
    exc_type=ImportError,
)

SETTINGS = ((0.0, 2), (1.0, 2), (1.0, 1))  # capacity factor, ep_size
# Tutel on a CPU computes in float32, whatever it is given: gates are rounded once more, sums go in
# another order.
CLOSE = {
    torch.float32: {"rtol": 1e-5, "atol": 1e-5},
    torch.float64: {"rtol": 1e-5, "atol": 1e-5},
    torch.bfloat16: {"rtol": 2**-7, "atol": 2**-6},
}


def build(implementation, factor, ep_size, dtype):
    """The layer of this rank with its own experts of the common weights."""
    spec = MoESpec(experts=EXPERTS, capacity_factor=factor, implementation=implementation)
    moe = MoE(WIDTH, HIDDEN, spec, ep_size=ep_size, reducer=GlooReducer()).to(dtype)
    moe.layer.set_deepspeed_parallelism()
    assert moe.layer.deepspeed_moe.use_tutel == (implementation == "tutel")
    weights = parameters()
    names = canonical_names(moe)
    for name, p in moe.named_parameters():
        p.data = weights[names[name]].to(dtype)
    return moe


def one_call(implementation, factor, ep_size, dtype, case):
    """Everything that one call and its backward give: output, gradients of input and weights,
    tokens dropped."""
    moe = build(implementation, factor, ep_size, dtype)
    x, mask, target = batch(case, dist.get_rank())
    x = x.to(dtype).requires_grad_()
    target = target.to(dtype)
    y, routing = run_moe(moe.train(), x, mask)
    ((y * target).sum() + 3 * routing.balance).backward()
    found = {
        "y": y.detach(),
        "x": x.grad,
        "teacher": run_moe(moe.eval(), x, mask)[0].detach(),
        "dropped": routing.dropped.sum(),
    }
    return found | {name: p.grad for name, p in moe.named_parameters()}


def two_calls(implementation):
    """Gradients of two inputs whose calls both come before the backward pass, and do not load the
    experts alike."""
    moe = build(implementation, 0.0, 2, torch.float32)
    inputs = [batch(case, 1)[0].float().requires_grad_() for case in ("plain", "skewed")]
    mask = torch.ones(len(inputs[0]), dtype=torch.bool)
    sum(run_moe(moe, x, mask)[0].square().sum() for x in inputs).backward()
    return {
        "first": inputs[0].grad,
        "second": inputs[1].grad,
        **{name: p.grad for name, p in moe.named_parameters()},
    }


def worker(function, arguments):
    """Results of a function of this file for each tuple of arguments, all in the same processes."""
    import deepspeed

    deepspeed.init_distributed("gloo", verbose=False)
    return {given: globals()[function](*given) for given in arguments}


def run(function, arguments):
    """Results of each rank."""
    return run_processes(2, "tests.dist.test_tutel:worker", [function, arguments])


def compare(found, expected, **close):
    assert found.keys() == expected.keys()
    for name in found:
        torch.testing.assert_close(
            found[name], expected[name], **close, msg=lambda m, name=name: f"{name}: {m}"
        )


@pytest.fixture(scope="module")
def single():
    """Results of one call in all cases, by rank."""
    arguments = []
    for name, setting, dtype, case in product(("deepspeed", "tutel"), SETTINGS, CLOSE, CASES):
        arguments.append((name, *setting, dtype, case))
    return run("one_call", arguments)


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("factor, ep_size", SETTINGS)
def test_values_and_gradients_equal_those_of_deepspeed(single, factor, ep_size, dtype):
    for results in single:
        for case in CASES:
            given = factor, ep_size, dtype, case
            compare(results["tutel", *given], results["deepspeed", *given], **CLOSE[dtype])
    case = "tutel", factor, ep_size, dtype, "skewed"
    dropped = sum(int(results[case]["dropped"]) for results in single)
    assert (dropped > 0) == (factor > 0)


def test_a_second_call_leaves_the_backward_pass_of_the_first_alone():
    for results in run("two_calls", [("deepspeed",), ("tutel",)]):
        compare(results["tutel",], results["deepspeed",], rtol=1e-5, atol=1e-4)
