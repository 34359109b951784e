"""One thing that is here or is not."""

from dataclasses import dataclass

ACTIVE, OFF, MISSING = "active", "off", "missing"


@dataclass(frozen=True)
class Fact:
    """One line of the report. ``off`` is what would work and is not asked for, or what nothing here
    can use."""

    name: str
    state: str  # ACTIVE, OFF or MISSING
    reason: str
    advice: str = ""  # what to do about it, if anything

    def line(self) -> str:
        """The fact as text."""
        return f"  {self.name:<24} {self.state:<8} {self.reason}{'; ' * bool(self.advice)}{self.advice}"


def found(name: str, obstacle: str | None, reason: str, advice: str) -> Fact:
    """Active for ``reason``, or missing because of ``obstacle``, and then ``advice``."""
    return Fact(name, MISSING, obstacle, advice) if obstacle else Fact(name, ACTIVE, reason)
