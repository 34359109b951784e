"""DeepSpeed's MoE layer with our gate in it (deepspeed.moe.sharded_moe, release 0.19.8)."""

from torch import nn

from models.errors import ModelError
from models.moe.experts import ExpertFFN
from models.moe.gate import capacity_limit, choose, gate_matrix
from models.spec import TUTEL, MoESpec


def deepspeed_layer(width: int, hidden: int, spec: MoESpec, *, ep_size: int) -> nn.Module:
    """Build the layer.

    Args:
        width: D.
        hidden: Hidden width of the experts.
        spec: Experts, capacity and implementation.
        ep_size: The number of ranks that share the experts.

    Raises:
        ModelError: The implementation is "tutel", and Tutel is not installed.
    """
    from deepspeed.moe.layer import MoE as DeepSpeedMoE
    from deepspeed.moe.sharded_moe import TUTEL_INSTALLED, TopKGate

    if spec.implementation == TUTEL and not TUTEL_INSTALLED:
        raise ModelError(
            "model.moe.implementation: expected the package tutel for 'tutel', found none; "
            "install it or set 'deepspeed'"
        )

    class Gate(TopKGate):
        """Our choice in the form that the layer's sparse dispatch reads."""

        def forward(self, input, used_token=None, sparse_routes=False, use_tutel=False):
            """Route tokens (N, D), ``used_token`` (N,) int64 the kinds that ``choose`` asks for.

            Returns:
                No auxiliary loss, the slots and the number of experts; then expert, slot and weight
                of each token, (1, N) each; then the ``Choice``.
            """
            capacity = None
            if self.training and spec.capacity_factor > 0:
                capacity = capacity_limit(len(input), spec)
            group = self.ep_group if ep_size > 1 else None
            weight = gate_matrix(self.wg, spec)
            choice = choose(input, weight, used_token, capacity=capacity, group=group)
            expert = choice.expert.masked_fill(~choice.kept, -1).int()  # N, negative: goes nowhere
            place = choice.place.masked_fill(~choice.kept, 0).int()  # N
            routes = (expert[None], place[None], choice.weight[None])
            return None, choice.capacity, spec.experts, *routes, choice

    layer = DeepSpeedMoE(
        width,
        ExpertFFN(width, hidden),
        num_experts=spec.experts,
        ep_size=ep_size,
        k=1,
        use_rts=False,
        use_tutel=spec.implementation == TUTEL,
    )
    layer.deepspeed_moe.gate = Gate(width, spec.experts, k=1, use_rts=False)
    return layer


def rank_in_group(ep_size: int) -> int:
    """This process's place among the ranks that share the experts.

    DeepSpeed groups consecutive ranks.

    Raises:
        ModelError: ``ep_size`` does not divide the number of processes.
    """
    from deepspeed import comm

    world_size = 1
    rank = 0
    if comm.is_initialized():
        world_size = comm.get_world_size()
        rank = comm.get_rank()
    if ep_size < 1 or world_size % ep_size:
        raise ModelError(
            f"ep_size: expected a divisor of the number of processes ({world_size}), found "
            f"{ep_size}; change ep_size, or initialise the processes before the model"
        )
    return rank % ep_size
