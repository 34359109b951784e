"""Mixture of experts (MoE) in the feed-forward network: top-1 routing over the packed token axis.

Parameter names and routing are the same, whoever does the work (supplement, F.5):

- ``ep_size`` None: ``models.moe.experts``, all experts in this process, in plain PyTorch.
- A number: the experts live in DeepSpeed's own container, so that DeepSpeed shards, reduces and
  saves them as experts. The gate is ours. DeepSpeed's layer moves the tokens, unless
  ``implementation`` is "grouped": then ``models.moe.experts`` does that here too.

DeepSpeed's gates draw random numbers, count absent tokens and balance each rank for itself. This
one serves the tokens of all sensors and view sizes alike, ignores masked tokens and balances the
global batch.
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from models.errors import ModelError
from models.moe.deepspeed_layer import deepspeed_layer, rank_in_group
from models.moe.experts import ExpertFFN, run_experts, sort_by_expert
from models.moe.gate import Choice, capacity_limit, choose, gate_matrix
from models.moe.names import canonical_name, expert_parameters
from models.packing import Layout, group_numbers
from models.reducer import Reducer
from models.spec import GROUPED, TUTEL, MoESpec


@dataclass
class Routing:
    """What one MoE layer decided for the tokens of a packed batch, for its loss and the logs."""

    balance: Tensor  # () auxiliary loss of the global batch, equal on all ranks; 0 in eval mode
    expert: Tensor  # N int64, the expert chosen (also for dropped tokens), -1 for masked tokens
    dropped: Tensor  # N bool, valid tokens that found their expert full
    layout: Layout  # the table of the N tokens: which image and modality each belongs to


class LocalGate(nn.Module):
    """The gate's parameter; ``models.moe.gate`` computes with it."""

    def __init__(self, width: int, experts: int):
        super().__init__()
        self.wg = nn.Linear(width, experts, bias=False)


class LocalExperts(nn.Module):
    """The expert networks."""

    def __init__(self, width: int, hidden: int, experts: int):
        super().__init__()
        self.deepspeed_experts = nn.ModuleList(ExpertFFN(width, hidden) for _ in range(experts))


class LocalLayer(nn.Module):
    """Gate and experts of this process.

    They have the names of DeepSpeed's layer, so that a checkpoint fits both.
    """

    def __init__(self, width: int, hidden: int, spec: MoESpec):
        super().__init__()
        self.gate = LocalGate(width, spec.experts)
        self.experts = LocalExperts(width, hidden, spec.experts)


class MoE(nn.Module):
    """Top-1 mixture of experts (MoE) with feed-forward networks for the packed axis.

    Gate: linear without bias and softmax in float32. The output is the chosen expert's, times the
    gate value. Masked tokens and those beyond the capacity return zero (the block's residual keeps
    them). Eval mode never drops. All ranks must call it equally often with the same N, because the
    exchange between ranks has fixed shapes.
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
        """Build the layer.

        Args:
            width: D.
            hidden: Hidden width of the experts.
            spec: Experts, capacity and implementation.
            ep_size: None for plain PyTorch, otherwise the number of ranks that share the experts.
                More than 1 needs the process groups of ``deepspeed.initialize`` (or
                ``set_deepspeed_parallelism()`` of ``self.layer``) before the first call.
            reducer: Collectives for the balance; None for a single process.

        Raises:
            ModelError: ``ep_size`` does not divide the experts or the processes, or is more than 1
                with "grouped" experts; or Tutel is missing.
        """
        super().__init__()
        self.spec = spec
        self.ep_size = ep_size
        self.reducer = Reducer() if reducer is None else reducer
        self.ep_rank = 0
        # whether DeepSpeed's layer moves the tokens between ranks
        self.exchanges = ep_size is not None and spec.implementation != GROUPED
        if ep_size is None:
            self.layer = nn.Module()
            self.layer.deepspeed_moe = LocalLayer(width, hidden, spec)
            return
        if ep_size > 1 and not self.exchanges:
            raise ModelError(
                "model.moe.implementation: 'grouped' expected all experts on every rank "
                f"(ep_size 1), found ep_size {ep_size}; set 'deepspeed'"
            )
        self.ep_rank = rank_in_group(ep_size)
        if spec.experts % ep_size:
            raise ModelError(
                f"ep_size: expected a divisor of model.moe.experts ({spec.experts}), found "
                f"{ep_size}; change one of them"
            )
        self.layer = deepspeed_layer(width, hidden, spec, ep_size=ep_size)

    @property
    def local_experts(self) -> int:
        """Experts that live in this process."""
        if self.ep_size is None:
            return self.spec.experts
        return self.spec.experts // self.ep_size

    def forward(self, x: Tensor, layout: Layout, mask: Tensor) -> tuple[Tensor, Routing]:
        """Send each token to its expert.

        Args:
            x: Packed tokens (N, D).
            layout: Their table. A full expert drops the same share of each of its groups.
            mask: (N,) bool, True where the token counts.

        Returns:
            Packed (N, D), and the routing.
        """
        inner: Any = self.layer.deepspeed_moe  # a LocalLayer, or DeepSpeed's MOELayer
        kind = group_numbers(layout, x.device).masked_fill(~mask, -1)  # N
        if self.exchanges:
            y = inner(x, kind)  # N D
            choice = inner.exp_counts
            # kept on the module it would hold the graph until the next call
            inner.exp_counts = None
            # Tutel's dispatcher holds a call's routing for its backward pass, and DeepSpeed would
            # use it again for the next call.
            inner.__dict__.pop("_tutel_dispatcher", None)
        else:
            y, choice = self._run_here(inner, x, kind)  # N D
        routing = Routing(
            balance=self._balance(choice),
            expert=choice.expert,
            dropped=mask & ~choice.kept,
            layout=layout,
        )
        return y, routing

    def _run_here(self, inner: Any, x: Tensor, kind: Tensor) -> tuple[Tensor, Choice]:
        """The output (N, D) where all experts are in this process.

        Each expert runs on exactly its own tokens, without padding.
        """
        spec = self.spec
        # without a limit any bound does, since there are no buffers to size
        capacity = len(x)
        if inner.training and spec.capacity_factor > 0:
            capacity = capacity_limit(len(x), spec)
        choice = choose(x, gate_matrix(inner.gate.wg, spec), kind, capacity=capacity)
        sizes = choice.counts.clamp(max=capacity)  # E
        order = sort_by_expert(choice.expert, choice.place, kept=choice.kept, sizes=sizes)
        experts = inner.experts.deepspeed_experts
        fused = spec.implementation == GROUPED
        return run_experts(x, order, choice.weight, experts, fused=fused), choice

    def _balance(self, choice: Choice) -> Tensor:
        """Load-balance loss over the global batch (Switch Transformer, equation 4).

        E x sum over experts of mean probability x share of tokens. Every rank returns the same
        value. ``sum_with_grad`` sums the gradients too, so the average over ranks that
        data-parallel training takes is the true gradient.
        """
        if not self.training:  # nobody trains on it: spare the collectives
            return choice.probabilities.new_zeros(())
        counts = self.reducer.sum(choice.counts)  # E, summed as integers: exact
        counts = counts.to(choice.probabilities.dtype)  # E
        tokens = counts.sum().clamp(min=1)
        mean = self.reducer.sum_with_grad(choice.probabilities.sum(0)) / tokens  # E
        return self.spec.experts * (mean * (counts / tokens)).sum()

    def global_expert_names(self) -> dict[str, str]:
        """Local name -> canonical name, of every expert parameter of this layer."""
        names = {}
        for name, _ in expert_parameters(self):
            names[name] = canonical_name(
                name, ep_rank=self.ep_rank, local_experts=self.local_experts
            )
        return names

    def describe(self) -> str:
        """One line for the log: which implementation runs, and how."""
        limit = "no dropping"
        if self.spec.capacity_factor > 0:
            limit = f"capacity factor {self.spec.capacity_factor:g}"
        return (
            f"MoE: {self.spec.experts} experts, top-1, {limit}, {self._describe_implementation()}"
        )

    def _describe_implementation(self) -> str:
        if self.spec.implementation == GROUPED:
            return "grouped products"
        if not self.exchanges:
            return "plain PyTorch"
        dispatch = "its own sparse dispatch"
        if self.spec.implementation == TUTEL:
            dispatch = "tutel kernels"
        return (
            f"DeepSpeed layer with {dispatch}, ep_size {self.ep_size}, {self.local_experts} "
            "experts a rank"
        )


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Local name -> canonical name, of every parameter of a model with any number of MoE layers."""
    names = {name: name for name, _ in model.named_parameters()}
    for prefix, module in model.named_modules():
        if isinstance(module, MoE):
            dot = f"{prefix}." if prefix else ""
            for local, canonical in module.global_expert_names().items():
                names[dot + local] = dot + canonical
    return names
