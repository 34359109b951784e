"""The counts of parameters that the paper prints, and the values that its description gives."""

from dataclasses import dataclass

MILLION = 1e6


@dataclass(frozen=True, kw_only=True)
class Quantity:
    """A count of the paper, or derived from it, in millions."""

    name: str
    variants: tuple[str, ...]  # the models that it holds for; the table shows the first
    module: str  # of ``models.count.parameters``, or "total"
    parts: tuple[str, ...] = ()  # none: the whole module
    paper: float | None = None
    correct: float | None = None  # what the paper's description gives, where that is known
    tolerance: float | None = None  # of ours from the correct value
    reason: str = ""  # why ours and the paper's differ
    activated: bool = False  # whether only one expert of each MoE block counts


def _backbone(
    name: str, variant: str, *, paper: float | None, correct: float, reason: str = ""
) -> Quantity:
    """A backbone whose size follows from the paper to its last digit."""
    return Quantity(
        name=name,
        variants=(variant,),
        module="backbone",
        paper=paper,
        correct=correct,
        tolerance=0.01,
        reason=reason,
    )


def _tokenizer(modality: str, *, paper: float, correct: float) -> Quantity:
    """One tokenizer, which the paper gives with two digits."""
    return Quantity(
        name=f"tokenizer {modality}",
        variants=_BOTH,
        module="tokenizers",
        parts=(modality,),
        paper=paper,
        correct=correct,
        tolerance=0.0,
        reason=_TWO_DIGITS,
    )


_BOTH = ("skysense_v2", "dense")  # the two columns of table 6
_TWO_DIGITS = "two digits in the paper"
_GATES = "the paper's row fits gates of 8 experts"
_ALIKE = (
    "the paper's rows fit 8 experts of width 1408 for every block, though two have width 2816, "
    "with the network that they replace still there"
)
_OPEN = "the paper does not say what is in it"
_SUM = "the differences in fusion and others"
QUANTITIES = (
    Quantity(
        name="tokenizers",
        variants=_BOTH,
        module="tokenizers",
        paper=0.09,
        correct=0.0855,
        tolerance=0.00005,
        reason=_TWO_DIGITS,
    ),
    _tokenizer("hr", paper=0.02, correct=0.017248),
    _tokenizer("ms", paper=0.06, correct=0.056672),
    _tokenizer("sar", paper=0.01, correct=0.011616),
    _backbone("backbone without experts", "dense", paper=661.40, correct=661.40),
    _backbone("backbone, 8 experts", "skysense_v2", paper=1994.10, correct=1994.10),
    Quantity(
        name="backbone, activated",
        variants=("skysense_v2",),
        module="backbone",
        paper=661,
        correct=661,
        tolerance=0.5,
        reason=(
            "whole millions in the paper; ours is the backbone without experts and the six gates"
        ),
        activated=True,
    ),
    _backbone("backbone, 4 experts", "experts_4", paper=1232.61, correct=1232.56, reason=_GATES),
    _backbone("backbone, 16 experts", "experts_16", paper=3517.08, correct=3517.17, reason=_GATES),
    _backbone(
        "backbone, experts in last 2", "moe_last_2", paper=1486.37, correct=1549.79, reason=_ALIKE
    ),
    _backbone(
        "backbone, experts in last 4", "moe_last_4", paper=1740.23, correct=1771.94, reason=_ALIKE
    ),
    _backbone(
        "backbone, experts in last 8", "moe_last_8", paper=2247.97, correct=2216.26, reason=_ALIKE
    ),
    _backbone(
        "backbone, experts spread",
        "moe_spread",
        paper=None,
        correct=1577.69,
        reason="table 13 gives no count; it does not compare models of equal size",
    ),
    Quantity(
        name="prompts",
        variants=_BOTH,
        module="prompts",
        paper=9.94,
        correct=9.945,
        tolerance=0.025,
        reason=(
            "the layout is ours: 4 tokens a modality and a projection a stage, which gives 9.92 to "
            "9.97"
        ),
    ),
    Quantity(
        name="fusion, layers and a projection",
        variants=_BOTH,
        module="fusion",
        parts=("layers", "projection hr"),
        correct=305.2,
        tolerance=0.05,
        reason="the part of the fusion module that the paper describes",
    ),
    Quantity(
        name="fusion",
        variants=_BOTH,
        module="fusion",
        paper=347.01,
        reason=f"{_OPEN}; ours: 24 layers, a projection a modality, day table, token, norm",
    ),
    Quantity(
        name="geo-context prototypes",
        variants=_BOTH,
        module="others",
        parts=("geo-context prototypes",),
        correct=209.7,
        tolerance=0.05,
        reason="inside the paper's others: 4096 regions of 100 prototypes",
    ),
    Quantity(
        name="others",
        variants=_BOTH,
        module="others",
        paper=490.49,
        reason=f"{_OPEN}; ours: prototypes, nine projection heads, query decoder, projections",
    ),
    Quantity(
        name="total without experts",
        variants=("dense",),
        module="total",
        paper=1508.93,
        reason=_SUM,
    ),
    Quantity(name="total", variants=("skysense_v2",), module="total", paper=2841.63, reason=_SUM),
)


def quantity_of(variant: str | None, module: str, parts: tuple[str, ...] = ()) -> Quantity | None:
    """What the paper says about a module or its parts in a variant, all experts counted."""
    for quantity in QUANTITIES:
        key = (quantity.module, quantity.parts, quantity.activated)
        if variant in quantity.variants and key == (module, parts, False):
            return quantity
    return None


def paper_count(variant: str | None, module: str) -> int | None:
    """The paper's count of a whole module, or of the total, in a variant."""
    quantity = quantity_of(variant, module)
    if quantity is None:
        return None
    return parameters(quantity.paper)


def parameters(millions: float | None) -> int | None:
    """Millions as a whole number of parameters; None stays None."""
    if millions is None:
        return None
    return round(millions * MILLION)
