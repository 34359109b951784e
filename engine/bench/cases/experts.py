"""The experts of a top-1 MoE layer on one process, nothing dropped.

DeepSpeed's layer, one expert after another, the library's grouped product, grouped kernels.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from engine.bench.case import BACKWARD, BOTH, FORWARD, Candidate, Case, Goal, Work
from engine.bench.cases.candidates import (
    NO_GPU,
    compiled,
    draw,
    precise,
    switched,
    type_name,
    with_kernels,
)
from models.moe.layer import MoE
from models.packing import Group, Layout
from models.spec import MoESpec

EXPERT_NAME = "layer.deepspeed_moe.experts.deepspeed_experts.{number}.{part}"
GATE_NAME = "layer.deepspeed_moe.gate.wg.weight"


class Size(NamedTuple):
    """``experts`` networks width -> hidden -> width."""

    tokens: int
    width: int
    hidden: int
    experts: int

    def __str__(self) -> str:
        return (
            f"{self.tokens} tokens, width {self.width}, hidden {self.hidden}, "
            f"{self.experts} experts"
        )


SIZES = {
    "paper": [Size(65536, 1408, 5632, 8), Size(16384, 2816, 11264, 8)],  # stages 3 and 4
    "small": [Size(2048, 128, 512, 8)],
    "tiny": [Size(48, 16, 32, 4)],
}
GOALS = (Goal(BOTH, "speed", 1.3, "DeepSpeed"),)


@dataclass(frozen=True)
class Inputs:
    """What all candidates are given.

    Attributes:
        size: Numbers of tokens and experts, widths.
        x: Tokens, (N, D).
        parameters: Name in the module -> values.
    """

    size: Size
    x: Tensor
    parameters: dict[str, Tensor]

    def double(self) -> "Inputs":
        """The same values in float64."""
        parameters = {name: value.double() for name, value in self.parameters.items()}
        return Inputs(self.size, self.x.double(), parameters)


class Experts(NamedTuple):
    """The tensors of all experts, a list entry for each."""

    w1: list[Tensor]  # H D
    b1: list[Tensor]  # H
    w2: list[Tensor]  # D H
    b2: list[Tensor]  # D


Formula = Callable[[Tensor, Tensor, Experts], Tensor]
Wrap = Callable[[Callable[[], Tensor]], Callable[[], Tensor]]


def case(size: Size, device: torch.device) -> Case:
    """All candidates have the project's gate: the same tokens go to the same experts."""
    dtype = precise(device)
    x = draw(size.tokens, size.width, device=device, seed=0).to(dtype)  # N D
    inputs = Inputs(size, x, _parameters(size, device, dtype))
    spec = MoESpec(experts=size.experts, capacity_factor=0.0)
    reference = partial(switched, "off")
    candidates = [
        _of_module("DeepSpeed", inputs, spec=spec, ep_size=1, wrap=reference),
        _of_module("one by one", inputs, spec=spec, ep_size=None, wrap=reference),
    ]
    left_out = {"grouped_mm": "a GPU's, eager and compiled", "kernels": NO_GPU}
    if device.type == "cuda":
        grouped_spec = replace(spec, implementation="grouped")
        kernels = partial(with_kernels, "experts")
        candidates += [
            _of_formula("grouped_mm", grouped, inputs),
            _of_formula("torch.compile, grouped_mm", compiled(grouped), inputs),
            _of_module("kernels", inputs, spec=grouped_spec, ep_size=None, wrap=kernels, ours=True),
        ]
        left_out = {}
    product = 4 * size.tokens * size.width * size.hidden
    weight_bytes = 2 * size.experts * size.width * size.hidden * x.element_size()
    return Case(
        "experts",
        f"{size}, {type_name(dtype)}",
        _of_formula("exact", formula, inputs.double()),
        tuple(candidates),
        tolerance=2e-2 if dtype == torch.bfloat16 else 1e-4,
        products=dtype,
        work={
            FORWARD: Work(2 * x.nbytes + weight_bytes, product),
            BACKWARD: Work(3 * x.nbytes + 2 * weight_bytes, 2 * product),
        },
        goals=GOALS if size == SIZES["paper"][0] else (),
        left_out=left_out,
    )


def _parameters(size: Size, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
    """Name in the module -> values such that activations and gradients are of order one."""
    with torch.device("meta"):  # names and shapes alone
        module = MoE(size.width, size.hidden, MoESpec(experts=size.experts))
    generator = torch.Generator().manual_seed(1)
    values = {}
    for name, parameter in sorted(module.named_parameters()):
        scale = parameter.shape[-1] ** -0.5
        value = torch.randn(parameter.shape, generator=generator) * scale
        values[name] = value.to(device, dtype)
    return values


def _of_module(
    name: str,
    inputs: Inputs,
    *,
    spec: MoESpec,
    ep_size: int | None,
    wrap: Wrap,
    ours: bool = False,
) -> Candidate:
    """The project's module with the given values."""
    size = inputs.size
    x = inputs.x
    with x.device:
        module = MoE(size.width, size.hidden, spec, ep_size=ep_size).to(x.device, x.dtype)
    parameters = dict(sorted(module.named_parameters()))
    if parameters.keys() != inputs.parameters.keys():
        raise RuntimeError(
            f"experts, {name}: expected the parameters {list(inputs.parameters)}, "
            f"found {list(parameters)}"
        )
    for key, parameter in parameters.items():
        parameter.data.copy_(inputs.parameters[key])
    mask = torch.ones(size.tokens, dtype=torch.bool, device=x.device)  # N
    leaf = x.clone().requires_grad_()
    layout = Layout((Group("any", "any", size.tokens, height=1, width=1),))
    call = wrap(lambda: module(leaf, layout, mask)[0])
    return Candidate(name, call, (leaf, *parameters.values()), ours=ours)


def _of_formula(name: str, function: Formula, inputs: Inputs) -> Candidate:
    """A formula with leaves in the modules' order."""
    leaf = inputs.x.clone().requires_grad_()
    parameters = {}
    for key, value in inputs.parameters.items():
        parameters[key] = value.clone().requires_grad_()

    def part_of_experts(part: str) -> list[Tensor]:
        names = [
            EXPERT_NAME.format(number=number, part=part) for number in range(inputs.size.experts)
        ]
        return [parameters[key] for key in names]

    def call() -> Tensor:
        experts = Experts(
            part_of_experts("fc1.weight"),
            part_of_experts("fc1.bias"),
            part_of_experts("fc2.weight"),
            part_of_experts("fc2.bias"),
        )
        return function(leaf, parameters[GATE_NAME], experts)

    return Candidate(name, call, (leaf, *parameters.values()))


def _choose(x: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Probability and number of each token's expert, in float32 or better."""
    exact = torch.promote_types(x.dtype, torch.float32)
    return F.linear(x.to(exact), gate.to(exact)).softmax(dim=1).max(dim=1)  # N, N


def formula(x: Tensor, gate: Tensor, experts: Experts) -> Tensor:
    """probability x expert(x) of the most probable expert: (N, D) -> (N, D)."""
    probability, chosen = _choose(x, gate)
    y = torch.zeros_like(x)
    for number, (w1, b1, w2, b2) in enumerate(zip(*experts)):
        rows = (chosen == number).nonzero()[:, 0]  # n
        hidden = F.gelu(F.linear(x[rows], w1, b1))  # n H
        out = F.linear(hidden, w2, b2) * probability[rows, None]  # n D
        y = y.index_add(0, rows, out)  # N D
    return y


def grouped(x: Tensor, gate: Tensor, experts: Experts) -> Tensor:
    """The same with PyTorch's grouped product: sorted by expert, nothing leaves the device."""
    probability, chosen = _choose(x, gate)
    chosen, order = chosen.sort(stable=True)  # N, N
    numbers = torch.arange(len(experts.w1), device=x.device)  # E
    ends = torch.searchsorted(chosen, numbers, right=True).int()  # E
    hidden = F.grouped_mm(x[order], torch.stack(experts.w1).mT, offs=ends)  # N H
    hidden = hidden + torch.stack(experts.b1)[chosen]
    out = F.grouped_mm(F.gelu(hidden), torch.stack(experts.w2).mT, offs=ends)  # N D
    out = out + torch.stack(experts.b2)[chosen]
    weighted = (out * probability[order][:, None]).to(x.dtype)
    return torch.zeros_like(x).index_copy(0, order, weighted)
