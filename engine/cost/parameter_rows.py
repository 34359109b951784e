"""Rows of a table of parameters: our count, the paper's, and the value to reach."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from engine.cost.paper_counts import QUANTITIES, Quantity, parameters, quantity_of
from models.count.parameters import MODULES, Count

TOTAL = "total"  # beside MODULES: all of them


@dataclass(frozen=True)
class Row:
    """One row; all numbers are parameters, not millions."""

    name: str
    ours: int
    activated: int
    paper: int | None = None
    correct: int | None = None
    tolerance: int | None = None
    reason: str | None = None

    @property
    def within(self) -> bool | None:
        """Whether ours is as near to the correct value as it must be; None if that is unknown."""
        if self.correct is None or self.tolerance is None:
            return None
        return abs(self.ours - self.correct) <= self.tolerance

    def record(self) -> dict:
        """Plain values, ``within`` among them."""
        return {**asdict(self), "within": self.within}


def paper_rows(counts: Mapping[str, Sequence[Count]]) -> list[Row]:
    """Every quantity of the paper; ``counts`` by variant."""
    rows = []
    for quantity in QUANTITIES:
        parts = select(counts[quantity.variants[0]], quantity.module, quantity.parts)
        rows.append(_row(quantity.name, parts, quantity))
    return rows


def model_rows(counts: Sequence[Count], variant: str | None) -> list[Row]:
    """Modules, their parts and the total of one model.

    Args:
        counts: of the model.
        variant: its name in the paper, or None for a model that the paper does not have.
    """
    rows = []
    for module in MODULES:
        rows.append(_row(module, select(counts, module), quantity_of(variant, module)))
        for entry in select(counts, module):
            quantity = quantity_of(variant, module, (entry.part,))
            rows.append(_row(f"{module} {entry.part}", [entry], quantity))
    rows.append(_row(TOTAL, counts, quantity_of(variant, TOTAL)))
    return rows


def select(counts: Sequence[Count], module: str, parts: Sequence[str] = ()) -> list[Count]:
    """The given parts of a module; all parts if none is given, of all modules for "total"."""
    chosen = []
    for entry in counts:
        if module in (entry.module, TOTAL) and (not parts or entry.part in parts):
            chosen.append(entry)
    return chosen


def total(counts: Sequence[Count]) -> int:
    """Sum of the parameters."""
    return sum(entry.parameters for entry in counts)


def total_activated(counts: Sequence[Count]) -> int:
    """Sum of the parameters that one token can meet."""
    return sum(entry.activated for entry in counts)


def _row(name: str, counts: Sequence[Count], quantity: Quantity | None) -> Row:
    """Our count, and what the paper says about it."""
    ours = total(counts)
    activated = total_activated(counts)
    if quantity is None:
        return Row(name, ours, activated)
    if quantity.activated:
        ours = activated
    return Row(
        name,
        ours,
        activated,
        paper=parameters(quantity.paper),
        correct=parameters(quantity.correct),
        tolerance=parameters(quantity.tolerance),
        reason=quantity.reason or None,
    )
