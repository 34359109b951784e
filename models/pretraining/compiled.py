"""Regions that torch.compile turns into kernels: modules that see nothing but tensors.

Attention over grids and the experts depend on the table of images, so whole blocks would be
compiled anew for each layout. A region is compiled once for a width, whatever the number of tokens,
and all layers of that width share the result.
"""

import torch
from torch import nn

from models.backbone.feed_forward import FeedForward
from models.fusion.transformer import FusionLayer

REGIONS = (FeedForward, FusionLayer)
# Graphs a region may have: widths x (student, teacher) x (all tokens, first ones of the last layer)
_LIMIT = 64


def compile_regions(model: nn.Module) -> int:
    """Let torch.compile run the regions of a model from their next call on.

    Names of parameters stay the same. Values agree to rounding.

    Returns:
        The number of regions.
    """
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _LIMIT)
    regions = _regions(model)
    for region in regions:
        region.compile(dynamic=True)
    return len(regions)


def describe_regions(model: nn.Module) -> str:
    """One line for the log: what torch.compile runs."""
    regions = _regions(model)
    compiled = 0
    for region in regions:
        if region._compiled_call_impl is not None:
            compiled += 1
    return f"torch.compile: {compiled} of {len(regions)} feed-forward networks and fusion layers"


def _regions(model: nn.Module) -> list[nn.Module]:
    return [module for module in model.modules() if isinstance(module, REGIONS)]
