"""Mixture of experts (MoE) in one process, against loops, formulas and DeepSpeed's stock layer."""

import copy
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch.utils.checkpoint import checkpoint

from engine.config.load import load
from engine.errors import ConfigError
from models.errors import ModelError
from models.moe.experts import ExpertFFN, sort_by_expert
from models.moe.gate import capacity_limit
from models.moe.layer import MoE, canonical_names
from models.moe.names import canonical_name, expert_parameters
from models.spec import ModelSpec, MoESpec
from tests.paths import CONFIGS
from tests.unit.layouts import run_moe
from tests.unit.models.moe.by_loops import (
    DEEP,
    GROUPED,
    HIDDEN,
    LOCAL,
    PATHS,
    TIGHT,
    WIDTH,
    build,
    gradients,
    loop,
    tokens,
)


@PATHS
def test_one_expert_is_the_plain_network(path):
    moe = build(path, experts=1)
    x, mask = tokens(7)
    ffn = ExpertFFN(WIDTH, HIDDEN).double()
    ffn.load_state_dict(moe.layer.deepspeed_moe.experts.deepspeed_experts[0].state_dict())
    y, routing = run_moe(moe, x, mask)
    expected = F.gelu(x @ ffn.fc1.weight.T + ffn.fc1.bias) @ ffn.fc2.weight.T + ffn.fc2.bias
    torch.testing.assert_close(y, expected, **TIGHT)
    torch.testing.assert_close(y, ffn(x), **TIGHT)
    assert routing.balance.item() == pytest.approx(1.0)  # the loss of a perfectly even load
    found, wanted = gradients(moe, x, y), gradients(ffn, x, ffn(x))
    assert torch.equal(
        found.pop("layer.deepspeed_moe.gate.wg.weight"), torch.zeros(1, WIDTH, dtype=torch.float64)
    )
    for (name, gradient), other in zip(found.items(), wanted.values(), strict=True):
        torch.testing.assert_close(gradient, other, msg=name, **TIGHT)


@PATHS
@pytest.mark.parametrize("number,factor", [(40, 0.0), (40, 0.5), (40, 1.25), (3, 0.0), (3, 1.0)])
def test_experts_equal_a_loop_over_tokens(path, number, factor):
    moe = build(path, factor=factor, min_capacity=2)
    x, mask = tokens(number, absent=(1,))
    capacity = min(max(-int(-factor * number // 4), 2), number) if factor else None
    expected, balance = loop(moe, x, mask, capacity)
    y, routing = run_moe(moe, x, mask)
    torch.testing.assert_close(y, expected, **TIGHT)
    torch.testing.assert_close(routing.balance, balance, **TIGHT)
    found, wanted = gradients(moe, x, y + routing.balance), gradients(moe, x, expected + balance)
    for name, gradient in found.items():
        other = wanted[name]
        torch.testing.assert_close(
            gradient, torch.zeros_like(gradient) if other is None else other, **TIGHT
        )


@pytest.mark.parametrize("path", [DEEP, GROUPED])
def test_values_and_gradients_equal_the_stock_layer(path):
    from deepspeed.moe.layer import MoE as Stock

    moe = build(path, dtype=torch.float32)
    # the stock gate asks DeepSpeed for its process groups when it drops nothing: give it room for
    # all instead
    stock = Stock(WIDTH, ExpertFFN(WIDTH, HIDDEN), 4, 1, k=1, capacity_factor=4.0, use_rts=False)
    stock.load_state_dict(moe.layer.state_dict())
    x, mask = tokens(50)
    x = x.detach().float().requires_grad_()
    y, routing = run_moe(moe, x, mask)
    expected, balance, counts = stock(x)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(routing.balance, balance)
    assert routing.expert.bincount(minlength=4).equal(counts)
    wanted = gradients(stock, x, expected + balance)
    for name, gradient in gradients(moe, x, y + routing.balance).items():
        torch.testing.assert_close(gradient, wanted[name.removeprefix("layer.")])


@pytest.mark.parametrize("factor", [0.0, 0.7])
@pytest.mark.parametrize("first", [LOCAL, GROUPED])
def test_local_and_deepspeed_paths_share_checkpoints_and_results(first, factor):
    local, deep = build(first, factor=factor), build(DEEP, factor=factor, seed=5)
    deep.load_state_dict(local.state_dict())
    x, mask = tokens(33, absent=(2, 3, 30))
    results = [run_moe(moe, x, mask) for moe in (local, deep)]
    torch.testing.assert_close(results[0][0], results[1][0])
    assert results[0][1].expert.equal(results[1][1].expert)
    assert results[0][1].dropped.equal(results[1][1].dropped)
    first, second = (
        gradients(moe, x, y + r.balance) for moe, (y, r) in zip((local, deep), results)
    )
    for name, gradient in first.items():
        torch.testing.assert_close(gradient, second[name])


@PATHS
def test_masked_tokens_influence_nothing(path):
    moe = build(path, factor=0.6, min_capacity=1)
    x, mask = tokens(24, absent=(0, 1, 2, 11, 23))
    loud = x.detach().where(mask[:, None], torch.nan).requires_grad_()
    results = [run_moe(moe, v, mask) for v in (x, loud)]
    assert results[0][0].equal(results[1][0]) and (results[1][0][~mask] == 0).all()
    assert results[0][1].balance.equal(results[1][1].balance)
    quiet, noisy = (gradients(moe, v, y + r.balance) for v, (y, r) in zip((x, loud), results))
    for name, gradient in quiet.items():
        assert gradient.equal(noisy[name]), name
    assert (noisy["x"][~mask] == 0).all()
    # and they take no place: the valid tokens alone, under the capacity of all, give the same
    capacity = capacity_limit(24, moe.spec)
    torch.testing.assert_close(results[0][0][mask], loop(moe, x[mask], mask[mask], capacity)[0])


@PATHS
@pytest.mark.parametrize("factor", [0.0, 1.25])
def test_no_valid_token_gives_zeros_and_zero_gradients(path, factor):
    moe = build(path, factor=factor)
    x, mask = tokens(6, absent=range(6))
    y, routing = run_moe(moe, x, mask)
    assert not y.any() and routing.balance.item() == 0 and (routing.expert == -1).all()
    for name, gradient in gradients(moe, x, y + routing.balance).items():
        assert gradient is not None and not gradient.any(), name


@PATHS
def test_bfloat16_routes_in_float32(path):
    moe = build(path, dtype=torch.bfloat16, factor=1.25)
    x, mask = tokens(40)
    x = x.detach().bfloat16().requires_grad_()
    y, routing = run_moe(moe, x, mask)
    logits = x.double() @ moe.layer.deepspeed_moe.gate.wg.weight.double().T
    assert y.dtype == torch.bfloat16 and routing.balance.dtype == torch.float32
    assert routing.expert.equal(logits.argmax(1))
    with torch.autocast("cpu", torch.bfloat16):
        again = run_moe(build(path, dtype=torch.float32), x.float(), mask)[1]
    assert again.balance.dtype == torch.float32
    (y.float().sum() + routing.balance).backward()
    assert all(p.grad.isfinite().all() and p.grad.dtype == torch.bfloat16 for p in moe.parameters())


@PATHS
def test_activation_checkpointing_changes_nothing(path):
    moe = build(path, factor=0.8)
    x, mask = tokens(30, absent=(4,))
    plain, routing = run_moe(moe, x, mask)
    saved, again = checkpoint(run_moe, moe, x, mask, use_reentrant=False)
    assert plain.equal(saved) and routing.balance.equal(again.balance)
    expected = gradients(moe, x, plain + routing.balance)
    for parameter in (x, *moe.parameters()):
        parameter.grad = None
    target = torch.randn(saved.shape, generator=torch.Generator().manual_seed(9), dtype=saved.dtype)
    ((saved + again.balance) * target).sum().backward()
    for name, parameter in [("x", x), *moe.named_parameters()]:
        torch.testing.assert_close(parameter.grad, expected[name])


@PATHS
@pytest.mark.parametrize("valid", [True, False])
def test_one_token(path, valid):
    moe = build(path, factor=1.25)
    x, mask = tokens(1, absent=() if valid else (0,))
    y, routing = run_moe(moe, x, mask)
    expected, balance = (
        loop(moe, x, mask) if valid else (torch.zeros_like(x), torch.zeros(()).double())
    )
    torch.testing.assert_close(y, expected, **TIGHT)
    torch.testing.assert_close(routing.balance, balance, **TIGHT)
    found = gradients(moe, x, y + routing.balance)
    assert all((gradient is not None) and gradient.isfinite().all() for gradient in found.values())
    assert found["x"].any() == valid


@pytest.mark.parametrize("path", [LOCAL, (None, "grouped"), GROUPED])
@pytest.mark.parametrize("factor", [0.0, 1.25])
def test_no_tokens(path, factor):
    moe = build(path, factor=factor)
    x, mask = tokens(0)
    y, routing = run_moe(moe, x, mask)
    assert y.shape == (0, WIDTH) and routing.balance.item() == 0 and not routing.dropped.any()
    for name, gradient in gradients(moe, x, y.sum() + routing.balance).items():
        assert gradient is not None and not gradient.any(), name


def test_tokens_are_sorted_by_expert():
    expert = torch.tensor([2, 0, -1, 2, 0, 2, 3])
    place = torch.tensor([0, 0, 0, 1, 1, 2, 0])
    kept = torch.tensor([True, True, False, True, True, False, True])  # expert 2 has room for two
    order = sort_by_expert(expert, place, kept=kept, sizes=torch.tensor([2, 0, 2, 1]))
    assert order.row.tolist() == [2, 0, -1, 3, 1, -1, 4]
    assert order.ends.tolist() == [2, 2, 4, 5]


def test_layer_keeps_no_graph_and_can_be_copied():
    for path in (LOCAL, DEEP, GROUPED):
        moe = build(path)
        x, mask = tokens(9)
        y = run_moe(moe, x, mask)[0]
        assert run_moe(copy.deepcopy(moe), x, mask)[0].equal(y)  # a held graph could not be copied


def test_canonical_names_number_experts_over_ranks():
    name = "blocks.3.ffn.layer.deepspeed_moe.experts.deepspeed_experts.1.fc1.weight"
    assert canonical_name(name, ep_rank=0, local_experts=2) == name
    assert canonical_name(name, ep_rank=3, local_experts=2) == name.replace(
        "experts.1.", "experts.7."
    )
    gate = "blocks.3.ffn.layer.deepspeed_moe.gate.wg.weight"
    assert canonical_name(gate, ep_rank=3, local_experts=2) == gate
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), build(LOCAL))
    model[1].ep_rank = 1  # as rank 1 of 2 with 4 experts each
    names = canonical_names(model)
    head = "1.layer.deepspeed_moe.experts.deepspeed_experts."
    assert names["0.weight"] == "0.weight" and names[head + "0.fc2.bias"] == head + "4.fc2.bias"
    assert set(names) == {name for name, _ in model.named_parameters()}
    assert {n for n, _ in expert_parameters(model)} == {n for n, new in names.items() if n != new}


@pytest.mark.parametrize("path", [DEEP, GROUPED])
def test_deepspeed_knows_the_experts(path):
    from deepspeed.moe.utils import has_moe_layers, is_moe_param

    moe = build(path)
    experts = {name for name, _ in expert_parameters(moe)}
    assert has_moe_layers(moe) == (True, 4)
    assert (
        experts == {name for name, p in moe.named_parameters() if is_moe_param(p)}
        and len(experts) == 16
    )


def test_the_log_says_which_path_runs():
    assert build(DEEP).describe().endswith("its own sparse dispatch, ep_size 1, 4 experts a rank")
    assert build(LOCAL).describe() == "MoE: 4 experts, top-1, no dropping, plain PyTorch"
    assert (
        build(GROUPED, factor=1.25).describe()
        == "MoE: 4 experts, top-1, capacity factor 1.25, grouped products"
    )


def test_errors_name_the_remedy():
    with pytest.raises(
        ModelError, match=r"ep_size: expected a divisor of the number of processes \(1\), found 2"
    ):
        MoE(WIDTH, HIDDEN, MoESpec(), ep_size=2)
    with pytest.raises(
        ModelError, match=r"'grouped' expected all experts .* \(ep_size 1\), found ep_size 2"
    ):
        MoE(WIDTH, HIDDEN, MoESpec(implementation="grouped"), ep_size=2)
    if "tutel" not in sys.modules:
        with pytest.raises(ModelError, match="install it or set 'deepspeed'"):
            MoE(WIDTH, HIDDEN, MoESpec(implementation="tutel"), ep_size=1)
    with pytest.raises(ModelError, match="'triton' is not 'deepspeed', 'tutel' or 'grouped'"):
        ModelSpec(moe=MoESpec(implementation="triton"))


def test_grouped_needs_all_experts_on_every_rank():
    path = CONFIGS / "demo_cpu.json"
    grouped = "skysense.model.moe.implementation=grouped"
    with pytest.raises(
        ConfigError, match=r"'grouped' expected .* \(skysense.ep_size 1\), found ep_size 2"
    ):
        load(path, [grouped, "skysense.ep_size=2"])
    assert (
        load(path, [grouped, "skysense.ep_size=1"]).settings.model.moe.implementation == "grouped"
    )


@pytest.mark.parametrize("implementation", ["deepspeed", "grouped"])
def test_local_path_never_imports_deepspeed_nor_triton(implementation):
    code = (
        "import sys, torch; from models.moe.layer import MoE; from models.spec import MoESpec; "
        "from tests.unit.layouts import run_moe; "
        f"moe = MoE(4, 8, MoESpec(experts=2, implementation={implementation!r})); "
        "run_moe(moe, torch.randn(5, 4), torch.ones(5, dtype=torch.bool))[0].sum().backward(); "
        "sys.exit(bool({'deepspeed', 'triton'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
