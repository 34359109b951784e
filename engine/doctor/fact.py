"""One thing that is here or is not."""

from dataclasses import dataclass

ACTIVE = "active"
OFF = "off"  # it works here but is not asked for, or nothing here can use it
MISSING = "missing"


@dataclass(frozen=True)
class Fact:
    """One line of the report."""

    name: str
    state: str  # ACTIVE, OFF or MISSING
    reason: str
    advice: str = ""  # what to do about it; never empty for MISSING

    def explanation(self) -> str:
        """The reason, and the advice if there is any."""
        if not self.advice:
            return self.reason
        return f"{self.reason}; {self.advice}"

    def line(self) -> str:
        """The fact as text."""
        return f"  {self.name:<24} {self.state:<8} {self.explanation()}"


def active(name: str, reason: str, advice: str = "") -> Fact:
    """Something that is used."""
    return Fact(name, ACTIVE, reason, advice)


def off(name: str, reason: str, advice: str = "") -> Fact:
    """Something that is not used."""
    return Fact(name, OFF, reason, advice)


def missing(name: str, reason: str, advice: str) -> Fact:
    """Something that is not here, and what to do about it."""
    return Fact(name, MISSING, reason, advice)


def check(name: str, obstacle: str | None, *, reason: str, advice: str) -> Fact:
    """Active for ``reason``; with an obstacle missing because of it, and then ``advice``."""
    if obstacle:
        return missing(name, obstacle, advice)
    return active(name, reason)
