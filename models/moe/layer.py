"""Mixture of experts in the feed-forward network: top-1 routing over the packed token axis
(supplement, F.5).

Parameter names and routing are the same whoever does the work. With ``ep_size=None`` that is
``models.moe.experts``, and nothing else is imported. With a number the experts live in DeepSpeed's
own container, so that DeepSpeed shards, reduces and saves them as experts, behind a gate of ours;
its layer moves the tokens, unless ``implementation`` is "grouped": then ``models.moe.experts`` does
that there too. Stock gates draw random numbers, count absent tokens and balance each rank for
itself; this one serves first come first served in packed order, ignores masked tokens and balances
the global batch.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.errors import ModelError
from models.moe.experts import ExpertFFN, run_experts, sort_by_expert
from models.reducer import Reducer
from models.spec import MoESpec

_EXPERT = re.compile(r"(.*\bdeepspeed_moe\.experts\.deepspeed_experts\.)(\d+)(\..*)")


@dataclass
class Routing:
    """What one mixture layer decided, for the auxiliary loss and the logs."""

    balance: Tensor  # () auxiliary loss of the global batch, equal on all ranks; 0 in eval mode
    expert: Tensor  # N int64, the expert chosen (also for dropped tokens), -1 for masked tokens
    dropped: Tensor  # () int64, valid tokens of this rank that found their expert full


@dataclass
class Choice:
    """The gate's answer for N tokens, before and after the capacity limit."""

    probabilities: Tensor  # N E, at least float32, zero rows for masked tokens
    expert: Tensor  # N int64, -1 for masked tokens
    place: Tensor  # N int64, position among the tokens of the same expert
    counts: Tensor  # E int64, tokens that chose each expert
    capacity: int  # slots an expert
    kept: Tensor  # N bool, valid and within the capacity
    weight: Tensor  # N gate value, zero where not kept


def capacity_limit(tokens: int, spec: MoESpec) -> int:
    """Slots an expert: factor x tokens / experts rounded up, not under min_capacity, never more
    than there are tokens.

    At least 1: DeepSpeed's layer cannot exchange empty buffers.
    """
    slots = max(math.ceil(spec.capacity_factor * tokens / spec.experts), spec.min_capacity)
    return max(min(slots, tokens), 1)


def choose(x: Tensor, weight: Tensor, mask: Tensor, capacity: int | None, group=None) -> Choice:
    """Top-1 choice of x (N, D) under the gate matrix (E, D), first come first served in packed
    order.

    Computed in float32 or better. ``capacity`` None drops nothing: the capacity becomes the largest
    load over the ranks of ``group``, which must agree on the shape of their exchange.
    """
    exact = torch.promote_types(x.dtype, torch.float32)
    absent = ~mask  # N
    with torch.autocast(x.device.type, enabled=False):
        # the fill comes before the product, or a NaN in an absent token would reach the gradient of
        # the gate
        logits = F.linear(x.to(exact).masked_fill(absent[:, None], 0), weight.to(exact))  # N E
        probabilities = logits.softmax(1).masked_fill(absent[:, None], 0)  # N E
    expert = probabilities.argmax(1).masked_fill(absent, -1)  # N
    hit = expert[:, None] == torch.arange(len(weight), device=x.device)  # N E
    counts = hit.sum(0)  # E
    place = ((hit.cumsum(0) - 1) * hit).sum(1)  # N
    if capacity is None:
        capacity = _largest(counts, group)
    kept = mask & (place < capacity)  # N
    value = probabilities.gather(1, expert.clamp(min=0)[:, None])[:, 0]  # N
    return Choice(probabilities, expert, place, counts, capacity, kept, value.masked_fill(~kept, 0))


def gate_matrix(gate: nn.Linear, spec: MoESpec) -> Tensor:
    """The gate's weight (E, D); a fixed one takes no gradient. It stays a parameter, so that all
    models save alike."""
    return gate.weight.detach() if spec.fixed_gate else gate.weight


def _largest(counts: Tensor, group) -> int:
    """The largest load (E,) over all ranks of the group, at least 1."""
    largest = counts.max()
    if group is not None:
        from deepspeed import comm

        comm.all_reduce(largest, op=comm.ReduceOp.MAX, group=group)
    return max(int(largest), 1)


class LocalLayer(nn.Module):
    """Gate and experts of this process under the names of DeepSpeed's layer, so that a checkpoint
    fits both."""

    def __init__(self, width: int, hidden: int, spec: MoESpec):
        super().__init__()
        self.gate = nn.Module()
        self.gate.wg = nn.Linear(width, spec.experts, bias=False)
        self.experts = nn.Module()
        self.experts.deepspeed_experts = nn.ModuleList(
            ExpertFFN(width, hidden) for _ in range(spec.experts)
        )


def _run_here(layer: nn.Module, x: Tensor, mask: Tensor, spec: MoESpec) -> tuple[Tensor, Choice]:
    """The mixture (N, D) where all experts are in this process: ``layer`` is a LocalLayer or
    DeepSpeed's layer.

    Each expert runs on exactly its own tokens, without padding.
    """
    drop = layer.training and spec.capacity_factor > 0
    # without a limit any bound does, there are no buffers to size
    capacity = capacity_limit(len(x), spec) if drop else len(x)
    choice = choose(x, gate_matrix(layer.gate.wg, spec), mask, capacity)
    row, ends = sort_by_expert(
        choice.expert, choice.place, choice.kept, choice.counts.clamp(max=capacity)
    )
    fused = spec.implementation == "grouped"
    return run_experts(x, row, ends, choice.weight, layer.experts.deepspeed_experts, fused), choice


def _deepspeed_layer(width: int, hidden: int, spec: MoESpec, ep_size: int) -> nn.Module:
    """DeepSpeed's mixture layer with our gate in it (deepspeed.moe.sharded_moe, release 0.19.8)."""
    from deepspeed.moe.layer import MoE as DeepSpeedMoE
    from deepspeed.moe.sharded_moe import TUTEL_INSTALLED, TopKGate

    if spec.implementation == "tutel" and not TUTEL_INSTALLED:
        raise ModelError(
            "model.moe.implementation: expected the package tutel for 'tutel', found none; "
            "install it or set 'deepspeed'"
        )

    class Gate(TopKGate):
        """Our choice in the form that the layer's sparse dispatch reads."""

        def forward(self, input, used_token=None, sparse_routes=False, use_tutel=False):
            """(N, D), (N,) bool -> auxiliary loss, slots, experts, then expert, slot and weight (1,
            N) each, Choice."""
            drop = self.training and spec.capacity_factor > 0
            group = self.ep_group if ep_size > 1 else None
            capacity = capacity_limit(len(input), spec) if drop else None
            choice = choose(input, gate_matrix(self.wg, spec), used_token, capacity, group)
            expert = choice.expert.masked_fill(~choice.kept, -1).int()  # N, negative: goes nowhere
            place = choice.place.masked_fill(~choice.kept, 0).int()  # N
            routes = (expert[None], place[None], choice.weight[None])
            return None, choice.capacity, spec.experts, *routes, choice

    layer = DeepSpeedMoE(
        width,
        ExpertFFN(width, hidden),
        spec.experts,
        ep_size,
        k=1,
        use_rts=False,
        use_tutel=spec.implementation == "tutel",
    )
    layer.deepspeed_moe.gate = Gate(width, spec.experts, k=1, use_rts=False)
    return layer


def _rank_in_group(ep_size: int) -> int:
    """This process's place among the ranks that share the experts. DeepSpeed groups consecutive
    ranks."""
    from deepspeed import comm

    world, rank = (comm.get_world_size(), comm.get_rank()) if comm.is_initialized() else (1, 0)
    if ep_size < 1 or world % ep_size:
        raise ModelError(
            f"ep_size: expected a divisor of the number of processes ({world}), found {ep_size}; "
            "change ep_size, or initialise the processes before the model"
        )
    return rank % ep_size


class MoE(nn.Module):
    """Top-1 mixture of feed-forward experts for the packed axis.

    Gate: linear without bias and softmax in float32; the output is the chosen expert's, times the
    gate value. Masked tokens and those beyond the capacity return zero (the block's residual keeps
    them). Eval mode never drops. All ranks must call it equally often with the same N: the exchange
    between ranks has fixed shapes.

    ``ep_size``: None for plain PyTorch; else how many ranks share the experts. More than 1 needs
    the process groups of ``deepspeed.initialize`` (or ``set_deepspeed_parallelism()`` of
    ``self.layer``) before the first call. Raises ModelError for an ep_size that divides neither the
    experts nor the processes, for "grouped" experts with more than 1, or a missing tutel.
    """

    def __init__(
        self,
        width: int,
        hidden: int,
        spec: MoESpec,
        *,
        ep_size: int | None = None,
        reducer: Reducer | None = None,
    ):
        super().__init__()
        self.spec = spec
        self.ep_size = ep_size
        self.reducer = reducer or Reducer()
        self.ep_rank = 0
        self.exchanges = ep_size is not None and spec.implementation != "grouped"
        if ep_size is None:
            self.layer = nn.Module()
            self.layer.deepspeed_moe = LocalLayer(width, hidden, spec)
        else:
            if ep_size > 1 and not self.exchanges:
                raise ModelError(
                    f"model.moe.implementation: 'grouped' expected all experts on every rank (ep_size 1), "
                    f"found ep_size {ep_size}; set 'deepspeed'"
                )
            self.ep_rank = _rank_in_group(ep_size)
            if spec.experts % ep_size:
                raise ModelError(
                    f"ep_size: expected a divisor of model.moe.experts ({spec.experts}), found {ep_size}"
                )
            self.layer = _deepspeed_layer(width, hidden, spec, ep_size)

    @property
    def local_experts(self) -> int:
        """Experts that live in this process."""
        return self.spec.experts // (self.ep_size or 1)

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Routing]:
        """x (N, D), mask (N,) bool, True where the token counts -> y (N, D), Routing."""
        inner = self.layer.deepspeed_moe
        if self.exchanges:
            y = inner(x, mask)  # N D
            # fetched and cleared: kept on the module it would hold the graph until the next call
            choice, inner.exp_counts = inner.exp_counts, None
            # Tutel's dispatcher holds a call's routing for its backward pass, and DeepSpeed would
            # reuse it for the next
            inner.__dict__.pop("_tutel_dispatcher", None)
        else:
            y, choice = _run_here(inner, x, mask, self.spec)  # N D
        dropped = (mask & ~choice.kept).sum()
        return y, Routing(self._balance(choice), choice.expert, dropped)

    def _balance(self, choice: Choice) -> Tensor:
        """Load-balance loss E x sum(mean probability x share of tokens) over the global batch
        (Switch, eq. 4).

        Every rank returns the same value; the summed gradients of ``sum_with_grad`` make the
        average over ranks, which data-parallel training takes, the true gradient.
        """
        if not self.training:  # nobody trains on it: spare the collectives
            return choice.probabilities.new_zeros(())
        counts = self.reducer.sum(choice.counts).to(
            choice.probabilities.dtype
        )  # E, summed as integers: exact
        tokens = counts.sum().clamp(min=1)
        mean = self.reducer.sum_with_grad(choice.probabilities.sum(0)) / tokens  # E
        return self.spec.experts * (mean * (counts / tokens)).sum()

    def global_expert_names(self) -> dict[str, str]:
        """Local name -> name with the global expert index, of every expert parameter of this layer."""
        names = [name for name, _ in expert_parameters(self)]
        return {name: canonical_name(name, self.ep_rank, self.local_experts) for name in names}

    def describe(self) -> str:
        """One line for the log: which path runs, and how."""
        limit = (
            f"capacity factor {self.spec.capacity_factor:g}"
            if self.spec.capacity_factor > 0
            else "no dropping"
        )
        if not self.exchanges:
            path = "grouped products" if self.spec.implementation == "grouped" else "plain PyTorch"
        else:
            kernels = (
                "tutel kernels"
                if self.spec.implementation == "tutel"
                else "its own sparse dispatch"
            )
            path = f"DeepSpeed layer with {kernels}, ep_size {self.ep_size}, {self.local_experts} experts a rank"
        return f"MoE: {self.spec.experts} experts, top-1, {limit}, {path}"


def canonical_name(name: str, ep_rank: int, local_experts: int) -> str:
    """Name of a parameter with the global expert index in it; other parameters keep their name.

    Experts are numbered from 0 on every rank: local expert i of rank r is expert r x local_experts
        + i.
    """
    match = _EXPERT.fullmatch(name)
    if match is None:
        return name
    head, index, tail = match.groups()
    return f"{head}{int(index) + ep_rank * local_experts}{tail}"


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Local parameter name -> canonical name, of every parameter of a model with any number of
    mixtures."""
    names = {name: name for name, _ in model.named_parameters()}
    for prefix, module in model.named_modules():
        if isinstance(module, MoE):
            dot = f"{prefix}." if prefix else ""
            names |= {
                dot + local: dot + name for local, name in module.global_expert_names().items()
            }
    return names


def expert_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Local name and parameter of every expert, in the model's order."""
    return ((name, p) for name, p in model.named_parameters() if _EXPERT.fullmatch(name))
