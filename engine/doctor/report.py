"""The command's output, and the two lines of it that a training prints."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.config.load import Config, load
from engine.doctor import machine
from engine.doctor.fact import MISSING, Fact
from engine.doctor.needs import choices, needs
from engine.doctor.packages import packages
from engine.errors import ConfigError


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor has to say.

    Attributes:
        groups: Title -> facts.
        error: What is wrong with the configuration, or what it needs and is not here.
    """

    groups: dict[str, list[Fact]]
    error: ConfigError | None = None

    def text(self) -> str:
        """A line for each fact, below the title of its group."""
        lines = []
        for title, facts in self.groups.items():
            lines.append(title)
            lines += [fact.line() for fact in facts]
        return "\n".join(lines)

    def record(self) -> dict[str, list[dict]]:
        """The facts as plain values."""
        return {title: [asdict(fact) for fact in facts] for title, facts in self.groups.items()}


def doctor_command(
    config: Path | None, overrides: list[str], *, ranks: int | None = None
) -> Diagnosis:
    """Find out what is active and why, and what a configuration needs.

    Args:
        config: Configuration file, or None.
        overrides: ``place=value`` of the configuration.
        ranks: Ranks of the run; None takes this machine's GPUs, or without any the
            configuration's ``ep_size``.

    Raises:
        ModelError: A wrong SKYSENSE_KERNELS.
    """
    groups = {"machine": machine.machine(), "packages": packages()}
    if config is None:
        return Diagnosis(groups)
    try:
        facts = _needs(config, overrides, ranks)
    except ConfigError as error:
        return Diagnosis(groups, error)
    groups[str(config)] = facts
    return Diagnosis(groups, _lacking(config, facts))


def _needs(path: Path, overrides: list[str], ranks: int | None) -> list[Fact]:
    """Facts of a configuration."""
    cards = torch.cuda.device_count()
    ranks = ranks or cards or load(path, overrides).settings.ep_size
    return needs(load(path, overrides, world_size=ranks), ranks, min(ranks, cards or ranks))


def _lacking(path: Path, facts: list[Fact]) -> ConfigError | None:
    """The first thing that is missing as an error, with the names of the others."""
    missing = [fact for fact in facts if fact.state == MISSING]
    if not missing:
        return None
    first, *others = missing
    more = f" (also missing: {', '.join(fact.name for fact in others)})" if others else ""
    return ConfigError(
        f"{path}: {first.name}: {first.reason}{'; ' * bool(first.advice)}{first.advice}{more}"
    )


def banner(config: Config) -> list[str]:
    """Two lines for the log of a training: the machine, and what the configuration chose of it."""
    facts = [machine.gpu(), machine.torch_version(), machine.nccl(), machine.cores()]
    return [
        "machine: " + " | ".join(f"{fact.name} {fact.reason}" for fact in facts),
        "paths: " + " | ".join(f"{fact.name}: {fact.reason}" for fact in choices(config)),
    ]
