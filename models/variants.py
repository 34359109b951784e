"""Named models: the paper's, those of its ablations, and two smaller ones of this project."""

import difflib
from dataclasses import replace
from typing import NamedTuple

from models.errors import ModelError
from models.spec import ContextSpec, FusionSpec, HeadSpec, ModelSpec, MoESpec

PAPER = ModelSpec.skysense_v2()


class Variant(NamedTuple):
    """A specification and what it is for."""

    about: str
    spec: ModelSpec


def _with_moe(about: str, **changes) -> Variant:
    """The paper's model with some fields of its MoE changed."""
    return Variant(about, PAPER.variant(moe=replace(MoESpec(), **changes)))


def _with_last_blocks(count: int) -> Variant:
    """The paper's model with MoE in its last ``count`` blocks; the paper itself has 6."""
    depth = sum(PAPER.depths)
    return _with_moe(
        f"experts in the last {count} blocks (table 12)",
        blocks=tuple(range(depth - count, depth)),
    )


VARIANTS = {
    "skysense_v2": Variant("the paper's model", PAPER),
    "dense": Variant("without experts (table 6)", PAPER.variant(moe=None)),
    "experts_4": _with_moe("4 experts in each MoE layer (table 11)", experts=4),
    "experts_16": _with_moe("16 experts in each MoE layer (table 11)", experts=16),
    "moe_last_2": _with_last_blocks(2),
    "moe_last_4": _with_last_blocks(4),
    "moe_last_8": _with_last_blocks(8),
    "moe_spread": _with_moe(
        "experts spread over all blocks (table 13)", blocks=(3, 7, 11, 15, 19, 23)
    ),
    "queries_4": Variant("4 queries (table 15)", PAPER.variant(queries=4)),
    "queries_8": Variant("8 queries (table 15)", PAPER.variant(queries=8)),
    "queries_24": Variant("24 queries (table 15)", PAPER.variant(queries=24)),
    # Not in the paper. Every mechanism is on, and what depends on the data (bands, frames, view
    # sizes, class embeddings) is as in the paper. Widths, depths, prototypes and regions are
    # smaller.
    "base": Variant(
        "not the paper's: for one GPU",
        PAPER.variant(
            widths=(128, 256, 512, 1024),
            depths=(2, 2, 12, 2),
            moe=MoESpec(blocks=(14, 15, 16, 17)),
            fusion=FusionSpec(width=512, layers=8, heads=8),
            context=ContextSpec(regions=1024, prototypes=64, width=256),
            head=HeadSpec(hidden=1024, prototypes=2048),
        ),
    ),
    "small": Variant(
        "not the paper's: for a laptop",
        PAPER.variant(
            widths=(64, 128, 256, 512),
            depths=(2, 2, 6, 2),
            moe=MoESpec(blocks=(8, 9, 10, 11), experts=4),
            fusion=FusionSpec(width=256, layers=4, heads=4),
            context=ContextSpec(regions=256, prototypes=32, width=128),
            head=HeadSpec(hidden=512, bottleneck=128, prototypes=4096),
        ),
    ),
}


def named(name: str) -> ModelSpec:
    """The specification of a name in ``VARIANTS``.

    Raises:
        ModelError: There is no such name.
    """
    if name in VARIANTS:
        return VARIANTS[name].spec
    hint = f"known: {', '.join(VARIANTS)}"
    similar = difflib.get_close_matches(name, VARIANTS, n=1)
    if similar:
        hint = f"did you mean {similar[0]!r}?"
    raise ModelError(f"model: there is no variant {name!r}; {hint}")


def name_of(spec: ModelSpec) -> str | None:
    """The name of a specification; None if none of the variants equals it."""
    for name, variant in VARIANTS.items():
        if variant.spec == spec:
            return name
    return None
