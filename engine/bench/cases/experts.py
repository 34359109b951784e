"""The experts of a top-1 mixture on one process, nothing dropped: DeepSpeed's layer, one expert
after another, the library's grouped product, grouped kernels."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Case, Goal, Way, Work
from engine.bench.cases.ways import NO_GPU, compiled, draw, precise, switched, with_kernels
from models.moe.layer import MoE
from models.packing import Group, Layout
from models.spec import MoESpec


class Size(NamedTuple):
    """``experts`` networks width -> hidden -> width."""

    tokens: int
    width: int
    hidden: int
    experts: int

    def __str__(self):
        return f"{self.tokens} tokens, width {self.width}, hidden {self.hidden}, {self.experts} experts"


SIZES = {
    "paper": [Size(65536, 1408, 5632, 8), Size(16384, 2816, 11264, 8)],  # stages 3 and 4
    "small": [Size(2048, 128, 512, 8)],
    "tiny": [Size(48, 16, 32, 4)],
}
GOALS = (Goal(BOTH, "speed", 1.3, "DeepSpeed"),)


def case(size: Size, device: torch.device) -> Case:
    """Gate included, in all ways the project's own: the same tokens go to the same experts."""
    dtype = precise(device)
    x = draw(size.tokens, size.width, device=device, seed=0).to(dtype)  # N D
    mask = torch.ones(size.tokens, dtype=torch.bool, device=device)
    spec = MoESpec(experts=size.experts, capacity_factor=0.0)
    first = _parameters(size, device, dtype)
    own = partial(_way, x=x, mask=mask, first=first, size=size)
    ways = [
        own("DeepSpeed", spec, ep_size=1, wrap=partial(switched, "off")),
        own("one by one", spec, ep_size=None, wrap=partial(switched, "off")),
    ]
    if device.type == "cuda":
        ways += [
            _of_formula("grouped_mm", grouped, x, first, size),
            _of_formula("torch.compile, grouped_mm", compiled(grouped), x, first, size),
            own(
                "kernels",
                replace(spec, implementation="grouped"),
                ep_size=None,
                wrap=partial(with_kernels, "experts"),
                ours=True,
            ),
        ]
        left_out = {}
    else:
        left_out = {"grouped_mm": "a GPU's, eager and compiled", "kernels": NO_GPU}
    product, width = 4 * size.tokens * size.width * size.hidden, x.element_size()
    weights = 2 * size.experts * size.width * size.hidden * width
    return Case(
        "experts",
        f"{size}, {dtype}".replace("torch.", ""),
        _of_formula("exact", formula, x.double(), {k: v.double() for k, v in first.items()}, size),
        tuple(ways),
        tolerance=2e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        work={
            FORWARD: Work(2 * x.nbytes + weights, product),
            BACKWARD: Work(3 * x.nbytes + 2 * weights, 2 * product),
        },
        goals=GOALS if size == SIZES["paper"][0] else (),
        left_out=left_out,
    )


def _parameters(size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Name in the module -> values such that activations and gradients are of order one."""
    with torch.device("meta"):  # names and shapes alone
        module = MoE(size.width, size.hidden, MoESpec(experts=size.experts))
    generator, found = torch.Generator().manual_seed(1), {}
    for name, parameter in sorted(module.named_parameters()):
        values = torch.randn(parameter.shape, generator=generator) * parameter.shape[-1] ** -0.5
        found[name] = values.to(device, dtype)
    return found


def _way(
    name: str,
    spec: MoESpec,
    ep_size: int | None,
    wrap,
    x: Tensor,
    mask: Tensor,
    first: dict[str, Tensor],
    size: Size,
    ours: bool = False,
) -> Way:
    """The project's module with the given values."""
    with x.device:
        module = MoE(size.width, size.hidden, spec, ep_size=ep_size).to(x.device, x.dtype)
    parameters = dict(sorted(module.named_parameters()))
    if parameters.keys() != first.keys():
        raise RuntimeError(
            f"experts, {name}: expected the parameters {list(first)}, found {list(parameters)}"
        )
    for key, parameter in parameters.items():
        parameter.data.copy_(first[key])
    leaf = x.clone().requires_grad_()
    layout = Layout((Group("any", "any", len(x), height=1, width=1),))
    return Way(
        name, wrap(lambda: module(leaf, layout, mask)[0]), (leaf, *parameters.values()), ours
    )


def _of_formula(name: str, function, x: Tensor, first: dict[str, Tensor], size: Size) -> Way:
    """``function(x, gate, four lists of an expert's tensors)`` with leaves in the modules' order."""
    leaf = x.clone().requires_grad_()
    parameters = {key: value.clone().requires_grad_() for key, value in first.items()}

    def call() -> Tensor:
        def of(part: str) -> list[Tensor]:
            return [
                parameters[f"layer.deepspeed_moe.experts.deepspeed_experts.{e}.{part}"]
                for e in range(size.experts)
            ]

        gate = parameters["layer.deepspeed_moe.gate.wg.weight"]
        return function(
            leaf, gate, of("fc1.weight"), of("fc1.bias"), of("fc2.weight"), of("fc2.bias")
        )

    return Way(name, call, (leaf, *parameters.values()))


def _gate(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Value and number of each token's expert, in float32 or better."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return F.linear(x.to(exact), gate.to(exact)).softmax(dim=1).max(dim=1)  # N, N


def formula(
    x: Tensor, gate: Tensor, w1: list[Tensor], b1: list[Tensor], w2: list[Tensor], b2: list[Tensor]
) -> Tensor:
    """probability x expert(x) of the most probable expert: (N, D) -> (N, D)."""
    value, chosen = _gate(x, gate)
    y = torch.zeros_like(x)
    for e in range(len(w1)):
        mine = (chosen == e).nonzero()[:, 0]
        hidden = F.gelu(F.linear(x[mine], w1[e], b1[e]))  # n H
        y = y.index_add(0, mine, F.linear(hidden, w2[e], b2[e]) * value[mine, None])  # N D
    return y


def grouped(
    x: Tensor, gate: Tensor, w1: list[Tensor], b1: list[Tensor], w2: list[Tensor], b2: list[Tensor]
) -> Tensor:
    """The same with PyTorch's grouped product: sorted by expert, nothing fetched from the device."""
    value, chosen = _gate(x, gate)
    chosen, order = chosen.sort(stable=True)  # N
    steps = torch.arange(len(w1), device=x.device)
    ends = torch.searchsorted(chosen, steps, right=True).int()  # E
    hidden = F.grouped_mm(x[order], torch.stack(w1).mT, offs=ends) + torch.stack(b1)[chosen]  # N H
    out = (
        F.grouped_mm(F.gelu(hidden), torch.stack(w2).mT, offs=ends) + torch.stack(b2)[chosen]
    )  # N D
    weighted = (out * value[order][:, None]).to(x.dtype)
    return torch.zeros_like(x).index_copy(0, order, weighted)
