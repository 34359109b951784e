"""Names of the experts' parameters.

Every rank numbers its experts from 0. A canonical name has the expert's number in the whole model.
"""

import re
from collections.abc import Iterator

from torch import nn

_EXPERT = re.compile(r"(.*\bdeepspeed_moe\.experts\.deepspeed_experts\.)(\d+)(\..*)")


def canonical_name(name: str, *, ep_rank: int, local_experts: int) -> str:
    """Name of a parameter with the global number of its expert.

    Local expert i of rank r is expert r x local_experts + i. Other parameters keep their name.
    """
    match = _EXPERT.fullmatch(name)
    if match is None:
        return name
    head, number, tail = match.groups()
    return f"{head}{int(number) + ep_rank * local_experts}{tail}"


def expert_parameters(model: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """Local name and parameter of every expert, in the model's order."""
    for name, parameter in model.named_parameters():
        if _EXPERT.fullmatch(name):
            yield name, parameter
