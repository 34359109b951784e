"""The kernels of the experts against the formula in float64: every expert on every token, then the
chosen one."""

import itertools

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("triton")

import models.kernels.experts as module
import models.kernels.grouped_product as product
from models.kernels.dispatch import active
from models.moe.experts import ExpertFFN, ExpertOrder, run_experts, sort_by_expert
from models.moe.layer import MoE
from models.spec import MoESpec
from tests.unit.host_waits import HostWaits
from tests.unit.layouts import run_moe

# The interpreter computes in NumPy, which warns of what is masked later.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning:triton.runtime.interpreter")
LIMITS = {
    torch.float32: 3e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.5e-2,
}  # of the distance, relative to the norm
LOADS = {  # number of tokens, and the expert of each; -1: none
    "uneven": (35, lambda n: torch.randint(-1, 3, (n,))),  # expert 3 is empty
    "first and last empty": (21, lambda n: torch.randint(1, 3, (n,))),
    "all to one": (50, lambda n: torch.full((n,), 2)),
    "none": (9, lambda n: torch.full((n,), -1)),
    "one token": (1, lambda n: torch.full((n,), 1)),
    "one absent token": (1, lambda n: torch.full((n,), -1)),
}


def scene(load="uneven", width=20, hidden=36, dtype=torch.float32, device="cpu", experts=4, seed=0):
    """Tokens, the expert of each, gate values and experts; drawn alike for all types."""
    torch.manual_seed(seed)
    number, draw = LOADS[load]
    expert = draw(number)
    x, weight = torch.randn(number, width), torch.rand(number)
    networks = torch.nn.ModuleList(ExpertFFN(width, hidden) for _ in range(experts))
    for p in networks.parameters():
        p.data = torch.randn(p.shape) / p.shape[-1] ** 0.5
    return (
        x.to(device, dtype).requires_grad_(),
        expert.to(device),
        weight.to(device).requires_grad_(),
        networks.to(device, dtype),
    )


def order(expert, experts=4):
    """Row of each token and ends of the experts, one token after another."""
    hit = expert[:, None] == torch.arange(experts, device=expert.device)  # N E
    place = ((hit.cumsum(0) - 1) * hit).sum(1)  # N
    return sort_by_expert(expert, place, kept=expert >= 0, sizes=hit.sum(0))


def kernel(x, order, weight, networks):
    """The kernels, whatever SKYSENSE_KERNELS says."""
    return module.run_experts(x, networks, row=order.row, ends=order.ends, weight=weight)


def formula(x, expert, weight, networks):
    """In float64, from the matrices alone."""
    x, weight = x.double(), weight.double()
    outputs = []
    for network in networks:
        w1, b1, w2, b2 = (p.double() for p in network.parameters())
        z = x.where((expert >= 0)[:, None], 0) @ w1.T + b1
        outputs.append(0.5 * z * (1 + torch.erf(z / 2**0.5)) @ w2.T + b2)
    y = torch.stack(outputs, dim=1)[torch.arange(len(x)), expert.clamp(min=0)]  # N D
    return (y * weight[:, None]).where((expert >= 0)[:, None], 0)


def gradients(y, x, weight, networks):
    """Of a fixed random projection of y, by name."""
    target = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y)
    names, parameters = zip(*networks.named_parameters())
    found = torch.autograd.grad((y * target).sum(), [x, weight, *parameters])
    return dict(zip(["x", "weight", *names], found))


def close(found, expected, limit):
    """Distance within ``limit`` of the norm; NaN never is."""
    return (found.double() - expected.double()).norm() <= limit * expected.double().norm()


def check(x, expert, weight, networks, run=kernel):
    """Values and gradients of ``run``."""
    y, expected = run(x, order(expert), weight, networks), formula(x, expert, weight, networks)
    limit = LIMITS[x.dtype]
    assert y.dtype == x.dtype and y.shape == x.shape and close(y, expected, limit)
    assert not y[expert < 0].any()
    found, wanted = gradients(y, x, weight, networks), gradients(expected, x, weight, networks)
    for name, gradient in found.items():
        assert gradient.dtype == wanted[name].dtype and close(gradient, wanted[name], limit), name
    return y, found


@pytest.mark.parametrize("load", LOADS)
def test_values_and_gradients(device, load):
    x, expert, *rest = scene(load, device=device)
    _, found = check(x, expert, *rest)
    for number in range(4):
        if not (expert == number).any():  # an expert without tokens has a gradient, and it is zero
            assert not any(g.any() for name, g in found.items() if name.startswith(f"{number}."))
    assert not found["x"][expert < 0].any() and not found["weight"][expert < 0].any()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_types(device, dtype):
    check(*scene(dtype=dtype, device=device))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_the_librarys_products(device, dtype, monkeypatch):
    """On a CPU it is a loop, with the same rules for strides and for rows behind the end."""
    monkeypatch.setattr(product, "_library_fits", lambda *_: True)
    used, grouped_mm = [], F.grouped_mm
    monkeypatch.setattr(
        F, "grouped_mm", lambda *args, **more: used.append(args) or grouped_mm(*args, **more)
    )
    check(*scene(width=24, hidden=32, dtype=dtype, device=device))
    assert len(used) == 6


def test_several_spans_and_steps(device, monkeypatch):
    monkeypatch.setattr(module, "SPAN", 8)
    monkeypatch.setattr(module, "STEP", 8)
    check(*scene(hidden=130, device=device))  # two tiles of columns


@pytest.mark.parametrize("experts", [1, 3])
def test_number_of_experts(device, experts):
    x, expert, weight, networks = scene(device=device)
    expert, networks = expert.clamp(max=experts - 1), networks[:experts]
    sorted_tokens = order(expert, experts)
    y, expected = (
        kernel(x, sorted_tokens, weight, networks),
        formula(x, expert, weight, networks),
    )
    assert close(y, expected, 3e-6)
    found, wanted = gradients(y, x, weight, networks), gradients(expected, x, weight, networks)
    assert all(close(gradient, wanted[name], 3e-6) for name, gradient in found.items())


@pytest.mark.parametrize("junk", [float("nan"), float("inf")])
@pytest.mark.parametrize("wish", ["on", "off"])
def test_tokens_without_an_expert_change_nothing(device, monkeypatch, wish, junk):
    monkeypatch.setenv("SKYSENSE_KERNELS", wish)
    x, expert, weight, networks = scene(device=device)
    y, found = check(x, expert, weight, networks, run_experts)
    loud = x.detach().where((expert >= 0)[:, None], junk).requires_grad_()
    weights = weight.detach().where(expert >= 0, junk).requires_grad_()
    again = run_experts(loud, order(expert), weights, networks)
    assert torch.equal(again, y)
    for name, gradient in gradients(again, loud, weights, networks).items():
        assert torch.equal(gradient, found[name]), name


def test_a_token_that_is_not_finite_is_not_hidden(device):
    x, expert, weight, networks = scene(device=device)
    with torch.no_grad():
        x[int((expert == 1).nonzero()[0]), 3] = torch.nan
    y = kernel(x, order(expert), weight, networks)
    assert y.isnan().any(dim=1).sum() == 1
    found = gradients(y, x, weight, networks)
    assert found["1.fc1.weight"].isnan().any() and found["0.fc1.weight"].isfinite().all()


@pytest.mark.parametrize("scale", [1e-4, 30.0])
def test_small_and_large_activations(device, scale):
    x, expert, weight, networks = scene(device=device)
    check((x.detach() * scale).requires_grad_(), expert, weight, networks)


def test_strides(device):
    x, expert, weight, networks = scene(device=device)
    expected = kernel(x, order(expert), weight, networks)
    wanted = gradients(expected, x, weight, networks)
    wide = torch.full((len(x), 2 * x.shape[1]), torch.nan, device=device)
    for view in (x.detach().mT.contiguous().mT, wide[:, ::2].copy_(x.detach())):
        view.requires_grad_()
        weights = torch.stack([weight.detach()] * 2, dim=1)[:, 0].requires_grad_()
        assert not view.is_contiguous() and not weights.is_contiguous()
        y = kernel(view, order(expert), weights, networks)
        torch.testing.assert_close(y, expected)
        target = torch.randn(y.shape, generator=torch.Generator().manual_seed(9)).to(y)
        # the gradient that comes in has strides of its own
        found = torch.autograd.grad(
            y, [view, weights, *networks.parameters()], target.mT.contiguous().mT
        )
        torch.testing.assert_close(found, tuple(wanted.values()))


def test_runs_repeat_and_leave_the_input_alone(device):
    x, expert, weight, networks = scene(device=device)
    before = x.detach().clone()
    y, first = check(x, expert, weight, networks)
    for _ in range(2):
        again = kernel(x, order(expert), weight, networks)
        assert torch.equal(again, y)
        found = gradients(again, x, weight, networks)
        assert all(torch.equal(found[name], first[name]) for name in first)
    assert torch.equal(x, before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_grouped_products(device, dtype):
    """Groups longer than a tile, empty ones, matrices by any strides; rows behind the end stay as
    they were."""
    torch.manual_seed(0)
    ends = torch.tensor([0, 70, 70, 71, 140, 140], dtype=torch.int32, device=device)
    x = torch.randn(150, 70, device=device, dtype=dtype)
    y = torch.randn(150, 40, device=device, dtype=dtype)
    x[140:] = torch.nan
    y[140:] = torch.nan
    matrices = torch.randn(6, 70, 40, device=device, dtype=dtype)
    cuts = [0, *ends.tolist()]
    spans = [slice(*cut) for cut in itertools.pairwise(cuts)]
    expected = torch.cat([x[span].double() @ m.double() for span, m in zip(spans, matrices)])
    for view in (matrices, matrices.mT.contiguous().mT, torch.cat([matrices] * 2, dim=2)[..., :40]):
        found = product.rows_times(x, ends, view)
        assert found.dtype == dtype and found.shape == (150, 40)
        assert close(found[:140], expected, LIMITS[dtype]) and (
            device.type == "cuda" or found[140:].isnan().all()
        )
    sums = product.outer_sums(x, y, ends)
    for span, total in zip(spans, sums, strict=True):
        assert close(total, x[span].double().T @ y[span].double(), LIMITS[dtype])
    assert not sums[[0, 2, 5]].any()


def test_no_step_waits_for_the_device(device, monkeypatch):
    """The code between the launches; whether launches wait is a matter for a GPU, below."""

    class Launch:
        def __getitem__(self, grid):
            assert all(isinstance(side, int) for side in grid)
            return lambda *args, **more: None

    for place in (module, product):
        for name in (
            "scatter_kernel",
            "gather_kernel",
            "activate_kernel",
            "sum_spans_kernel",
            "_rows_times",
            "_outer_sums",
        ):
            if hasattr(place, name):
                monkeypatch.setattr(place, name, Launch())
    moe = MoE(20, 36, MoESpec(experts=4, implementation="grouped")).to(device)
    x, mask = (
        torch.randn(30, 20, device=device, requires_grad=True),
        torch.rand(30, device=device) < 0.8,
    )
    with HostWaits() as waits:
        y, routing = run_moe(moe, x, mask)
        (y.sum() + routing.balance).backward()
    assert "Triton" in active()["experts"] and not waits.found


@pytest.mark.parametrize("ep_size", [None, 1])
@pytest.mark.parametrize("factor", [0.0, 0.7])
def test_the_moe_layer_is_the_same_with_and_without(device, monkeypatch, ep_size, factor):
    torch.manual_seed(0)
    moe = MoE(
        20,
        36,
        MoESpec(experts=4, capacity_factor=factor, implementation="grouped"),
        ep_size=ep_size,
    ).to(device)
    x, mask = (
        torch.randn(60, 20, device=device, requires_grad=True),
        torch.rand(60, device=device) < 0.8,
    )
    used, run, results = [], module.run_experts, []
    monkeypatch.setattr(
        module, "run_experts", lambda *args, **more: used.append(args) or run(*args, **more)
    )
    for wish in ("on", "off"):
        monkeypatch.setenv("SKYSENSE_KERNELS", wish)
        y, routing = run_moe(moe, x, mask)
        loss = (y * y.detach().roll(1)).sum() + routing.balance
        results.append([y, routing.balance, *torch.autograd.grad(loss, [x, *moe.parameters()])])
        assert routing.dropped.any() == (factor > 0)
    assert len(used) == 1 and "Triton" in active()["experts"]
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)


def test_what_the_kernels_do_not_take_goes_to_the_reference(device):
    x, expert, weight, networks = scene(device=device)
    place = order(expert)
    run_experts(x.double(), place, weight.double(), networks.double())
    assert "PyTorch (the types of tokens and experts are torch.float64" in active()["experts"]
    with pytest.raises(RuntimeError, match="dtype"):
        run_experts(x.bfloat16(), place, weight, networks.float())
    with torch.autocast(device.type, torch.bfloat16):
        assert run_experts(x, place, weight, networks.float()).dtype == torch.bfloat16
    assert "autocast" in active()["experts"]
    empty = run_experts(
        x[:0], ExpertOrder(place.row[:0], 0 * place.ends), weight[:0], networks.float()
    )
    assert empty.shape == (0, 20) and empty.requires_grad


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("load", ["even", "skewed"])
def test_real_sizes(device, dtype, load):
    """Width 1408, 8 experts; against the reference in float64, without a wait, the same bits in ten
    runs."""
    torch.manual_seed(0)
    number, width, experts = 8192 if dtype == torch.bfloat16 else 2048, 1408, 8
    expert = torch.randint(-1, experts, (number,), device=device)
    if load == "skewed":
        expert = expert.where(torch.rand(number, device=device) < 0.1, 5).where(expert != 3, 5)
    networks = torch.nn.ModuleList(ExpertFFN(width, 4 * width) for _ in range(experts)).to(
        device, dtype
    )
    x = torch.randn(number, width, device=device, dtype=dtype, requires_grad=True)
    weight = torch.rand(number, device=device, requires_grad=True)
    target = torch.randn(number, width, device=device, dtype=dtype)
    inputs, runs, place = [x, weight, *networks.parameters()], [], order(expert, experts)

    def once():
        y = kernel(x, place, weight, networks)
        return y.detach(), *torch.autograd.grad(y, inputs, target)

    runs.append(once())  # compiles
    torch.cuda.set_sync_debug_mode("error")
    try:
        runs += [once() for _ in range(9)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.equal(a, b) for run in runs[1:] for a, b in zip(run, runs[0], strict=True))
    expected = formula(x, expert, weight, networks)
    wanted = torch.autograd.grad(expected, inputs, target.double())
    limit = 1e-5 if dtype == torch.float32 else LIMITS[dtype]
    assert all(close(a, b, limit) for a, b in zip(runs[0], (expected, *wanted), strict=True))
