"""Regions that torch.compile makes kernels of: those that see tensors alone.

Attention by grid and the experts depend on the table of images, so whole blocks would be compiled
anew for each layout. A region is compiled once for a width, whatever the number of tokens, and
shared by all layers of that width.
"""

import torch
from torch import nn

from models.backbone.transformer import FeedForward
from models.fusion.transformer import FusionLayer

REGIONS = (FeedForward, FusionLayer)
_LIMIT = (
    64  # graphs a region: widths x (student, teacher) x (all tokens, the last layer's first ones)
)


def compile_regions(model: nn.Module) -> int:
    """Let torch.compile run the regions of ``model`` from their next call on; returns how many
    there are.

    Names of parameters stay, values agree to rounding.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _LIMIT)
    regions = [module for module in model.modules() if isinstance(module, REGIONS)]
    for region in regions:
        region.compile(dynamic=True)
    return len(regions)


def describe_regions(model: nn.Module) -> str:
    """One line for the log: what torch.compile runs."""
    regions = [module for module in model.modules() if isinstance(module, REGIONS)]
    compiled = sum(module._compiled_call_impl is not None for module in regions)
    return f"torch.compile: {compiled} of {len(regions)} feed-forward networks and fusion layers"
