"""A layer with random weights, its tokens, and what it does, token by token."""

import pytest
import torch

from models.moe.layer import MoE
from models.spec import MoESpec

WIDTH, HIDDEN = 12, 20
LOCAL, DEEP, GROUPED = (None, "deepspeed"), (1, "deepspeed"), (1, "grouped")
TIGHT = {"rtol": 1e-10, "atol": 1e-10}
PATHS = pytest.mark.parametrize(
    "path", [LOCAL, DEEP, (None, "grouped"), GROUPED], ids=lambda path: f"{path[1]}-{path[0]}"
)


def build(path, experts=4, factor=0.0, dtype=torch.float64, seed=0, **changes):
    """A layer with random weights that do not depend on the path: ep_size and implementation."""
    ep_size, implementation = path
    spec = MoESpec(
        experts=experts, capacity_factor=factor, implementation=implementation, **changes
    )
    moe = MoE(WIDTH, HIDDEN, spec, ep_size=ep_size).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    for _, parameter in sorted(moe.named_parameters()):
        parameter.data = (
            torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(dtype) * 0.5
        )
    return moe


def tokens(number, seed=1, absent=()):
    """Random tokens and a mask without some of them."""
    x = torch.randn(
        number, WIDTH, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    mask = torch.ones(number, dtype=torch.bool)
    mask[list(absent)] = False
    return x.requires_grad_(), mask


def loop(moe, x, mask, capacity=None):
    """The layer token by token, from its definition; output and auxiliary loss."""
    inner = moe.layer.deepspeed_moe
    experts = inner.experts.deepspeed_experts
    probability = {
        n: torch.softmax(inner.gate.wg.weight @ token, 0)
        for n, (token, valid) in enumerate(zip(x, mask))
        if valid
    }
    rows, share = [torch.zeros_like(token) for token in x], []
    for number, expert in enumerate(experts):
        wanting = [n for n, p in probability.items() if int(p.argmax()) == number]
        share.append(len(wanting) / len(probability))
        wanting.sort(key=lambda n: (-float(probability[n][number].detach()), n))
        for n in wanting[:capacity]:
            rows[n] = probability[n][number] * expert(x[n])
    mean = torch.stack(list(probability.values())).mean(0)
    return torch.stack(rows), len(experts) * (mean * torch.tensor(share, dtype=x.dtype)).sum()


def gradients(moe, x, output):
    """Gradients of a fixed random projection of the output, by name, the input's too."""
    target = torch.randn(
        output.shape, generator=torch.Generator().manual_seed(9), dtype=output.dtype
    )
    names, parameters = zip(*moe.named_parameters())
    found = torch.autograd.grad(
        (output * target).sum(), [x, *parameters], allow_unused=True, retain_graph=True
    )
    return dict(zip(["x", *names], found))
