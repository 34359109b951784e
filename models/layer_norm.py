"""Which library computes the layer norms of a model: torch, or NVIDIA's Apex where a run asks.

Apex keeps the same parameters under the same names, so checkpoints fit both. torch has a fused
kernel of its own, which public measurements on cards since 2020 show to be the faster one
(docs/backends.md). It is the default.
"""

import importlib
from collections.abc import Callable

import torch
from torch import nn

from models.errors import ModelError

TORCH = "torch"
APEX = "apex"
IMPLEMENTATIONS = (TORCH, APEX)


def layer_norm_class(implementation: str) -> Callable[..., nn.Module]:
    """The module class that computes layer norms.

    Args:
        implementation: One of ``IMPLEMENTATIONS``.

    Raises:
        ModelError: Apex cannot run on this machine.
    """
    if implementation == TORCH:
        return nn.LayerNorm
    obstacle = apex_obstacle("fused_layer_norm_cuda")
    if obstacle is not None:
        raise ModelError(
            f"layer_norm: expected Apex with its CUDA extensions for 'apex', found {obstacle}; "
            "install it (docs/backends.md) or set 'torch'"
        )
    return importlib.import_module("apex.normalization").FusedLayerNorm


def apex_obstacle(extension: str) -> str | None:
    """Why Apex cannot run its compiled ``extension`` here, or None if it can.

    This also looks for a GPU: without one Apex would silently use another path. The package "apex"
    of PyPI is something else.
    """
    for name in ("apex.normalization", extension):
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"no {name} ({error})"
    if not torch.cuda.is_available():
        return "no GPU"
    return None


def use_layer_norm(model: nn.Module, norm_class: Callable[..., nn.Module]) -> None:
    """Replace every layer norm of a finished model; parameters and names stay the same.

    Args:
        model: Changed in place.
        norm_class: Called with the shape and the epsilon of each norm that it replaces.
    """
    if norm_class is nn.LayerNorm:
        return
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if isinstance(norm, nn.LayerNorm):
                replacement = norm_class(norm.normalized_shape, norm.eps)
                replacement.weight = norm.weight
                replacement.bias = norm.bias
                module.add_module(name, replacement)
