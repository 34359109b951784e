"""Who computes the layer norms of a model: torch, or NVIDIA's Apex where a run asks for it.

Apex keeps the same parameters under the same names, so checkpoints fit both. torch has a fused
kernel of its own, which public measurements on cards since 2020 show to be the faster one
(docs/backends.md): it is the default.
"""

import importlib
from collections.abc import Callable

import torch
from torch import nn

from models.errors import ModelError

IMPLEMENTATIONS = ("torch", "apex")


def layer_norm_class(implementation: str) -> Callable[..., nn.Module]:
    """The module class of "torch" or "apex". Raises ModelError, one line, where it cannot run on
    this machine."""
    if implementation == "torch":
        return nn.LayerNorm
    obstacle = apex_obstacle("fused_layer_norm_cuda")
    if obstacle:
        raise ModelError(
            f"layer_norm: expected Apex with its CUDA extensions for 'apex', found {obstacle}; install it "
            "(docs/backends.md) or set 'torch'"
        )
    return importlib.import_module("apex.normalization").FusedLayerNorm


def apex_obstacle(extension: str) -> str | None:
    """Why Apex cannot run its compiled ``extension`` here, or None.

    Its layer norm would pass over a missing GPU silently. The package "apex" of PyPI is something
    else.
    """
    for name in ("apex.normalization", extension):
        try:
            importlib.import_module(name)
        except ImportError as error:
            return f"no {name} ({error})"
    return None if torch.cuda.is_available() else "no GPU"


def use_layer_norm(model: nn.Module, made_by: Callable[..., nn.Module]) -> None:
    """Replace every layer norm of a finished model by one of class ``made_by`` with the same
    parameters and names."""
    if made_by is nn.LayerNorm:
        return
    for module in list(model.modules()):
        for name, norm in module.named_children():
            if isinstance(norm, nn.LayerNorm):
                fused = made_by(norm.normalized_shape, norm.eps)
                fused.weight, fused.bias = norm.weight, norm.bias
                module.add_module(name, fused)
