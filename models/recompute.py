"""Activation checkpointing: which results of a block are kept for the backward pass and which are
computed again."""

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

# "blocks": nothing inside a block or fusion layer is kept. "windows": the same for the blocks of
# stages 1 and 2 alone, where most tokens are. "pointwise": results of matrix products and attention
# are kept, the rest is computed again.
POLICIES = ("blocks", "windows", "pointwise")

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


def run(function: Callable, *arguments, policy: bool | str = "blocks") -> Any:
    """``function(*arguments)``, keeping for the backward pass what ``policy`` says. False:
    everything; True: "blocks".

    ``function`` must draw no random numbers. Values and gradients do not depend on the policy.
    Raises ValueError for a policy that is none.
    """
    if not policy or not torch.is_grad_enabled():
        return function(*arguments)
    if policy is not True and policy not in POLICIES:
        raise ValueError(f"checkpointing: expected one of {', '.join(POLICIES)}, found {policy!r}")
    contexts = (
        partial(create_selective_checkpoint_contexts, _keep_products)
        if policy == "pointwise"
        else noop_context_fn
    )
    return checkpoint(
        function, *arguments, use_reentrant=False, preserve_rng_state=False, context_fn=contexts
    )


def _keep_products(context, operator, *arguments, **options) -> CheckpointPolicy:
    """What torch asks for every operator of a block."""
    return CheckpointPolicy.MUST_SAVE if operator in PRODUCTS else CheckpointPolicy.PREFER_RECOMPUTE
