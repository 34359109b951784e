"""One thing that is wrong, or strange, about one tile or one source."""

from dataclasses import dataclass

WRONG = "wrong"
LOOK = "look"


@dataclass(frozen=True)
class Fault:
    """What speaks against a tile's sensor or its labels.

    Attributes:
        kind: what it is, the same words for all of its kind.
        sensor: key of the sensor, or "labels".
        verdict: "wrong", or "look" where nature can do the same.
        reason: what was expected and what was found, with numbers.
        strength: orders the faults of a kind, the worst first.
    """

    kind: str
    sensor: str
    verdict: str
    reason: str
    strength: float
