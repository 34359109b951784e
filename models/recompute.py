"""Activation checkpointing: which results of a block are kept for the backward pass.

Everything else is computed again there. That saves memory and costs time.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import (
    CheckpointPolicy,
    checkpoint,
    create_selective_checkpoint_contexts,
    noop_context_fn,
)

from models.errors import ModelError

NONE = "none"  # keep everything
BLOCKS = "blocks"  # keep nothing inside a transformer block or a fusion layer
WINDOWS = "windows"  # the same, but only in the window stages, which have the most tokens
POINTWISE = "pointwise"  # keep the results of matrix products and attention, nothing else
POLICIES = (NONE, BLOCKS, WINDOWS, POINTWISE)

_ATEN = torch.ops.aten
PRODUCTS = frozenset(
    {
        _ATEN.mm.default,
        _ATEN.addmm.default,
        _ATEN.bmm.default,
        _ATEN.baddbmm.default,
        _ATEN._scaled_dot_product_flash_attention.default,
        _ATEN._scaled_dot_product_efficient_attention.default,
        _ATEN._scaled_dot_product_cudnn_attention.default,
        _ATEN._scaled_dot_product_flash_attention_for_cpu.default,
    }
)


def check_policy(policy: str) -> str:
    """Return ``policy`` unchanged if it is one of ``POLICIES``.

    Raises:
        ModelError: It is not.
    """
    if policy not in POLICIES:
        raise ModelError(f"recompute: expected one of {', '.join(POLICIES)}, found {policy!r}")
    return policy


def run_block(function: Callable, *arguments: Any, policy: str) -> Any:
    """Call ``function(*arguments)`` and keep for the backward pass what ``policy`` says.

    Values and gradients do not depend on the policy.

    Args:
        function: A block. It must draw no random numbers.
        arguments: What the block takes.
        policy: One of ``POLICIES``. Here "windows" means the same as "blocks": the caller passes
            "none" outside the window stages.

    Returns:
        What ``function`` returns.

    Raises:
        ModelError: The policy is unknown.
    """
    check_policy(policy)
    if policy == NONE or not torch.is_grad_enabled():
        return function(*arguments)
    contexts: Callable = noop_context_fn
    if policy == POINTWISE:
        contexts = partial(create_selective_checkpoint_contexts, _keep_products)
    return checkpoint(
        function, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )


def _keep_products(context, operator, *arguments, **options) -> CheckpointPolicy:
    """Tell torch what to do with the result of one operator of a block."""
    if operator in PRODUCTS:
        return CheckpointPolicy.MUST_SAVE
    return CheckpointPolicy.PREFER_RECOMPUTE
