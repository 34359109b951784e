"""The command's output, and the two lines of it that a training prints."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from engine.config.load import Config, load
from engine.doctor import machine
from engine.doctor.fact import MISSING, Fact
from engine.doctor.fit import fit
from engine.doctor.needs import choices, needs
from engine.doctor.packages import packages
from engine.errors import ConfigError
from engine.planning.cards import CARDS
from engine.planning.plan import Setting


@dataclass(frozen=True)
class Diagnosis:
    """The facts, and what keeps a configuration from running."""

    groups: dict[str, list[Fact]]  # title -> facts
    error: ConfigError | None = None  # the configuration is wrong, or what it needs is not here

    def text(self) -> str:
        """A line for each fact, below the title of its group."""
        lines = []
        for title, facts in self.groups.items():
            lines.append(title)
            for fact in facts:
                lines.append(fact.line())
        return "\n".join(lines)

    def record(self) -> dict[str, list[dict]]:
        """The facts as plain values."""
        record = {}
        for title, facts in self.groups.items():
            record[title] = [asdict(fact) for fact in facts]
        return record


def doctor_command(
    config: Path | None, overrides: list[str], *, ranks: int | None = None
) -> Diagnosis:
    """Find out what is active and why, and what a configuration needs.

    Args:
        config: configuration file, or None.
        overrides: ``place=value`` of the configuration.
        ranks: of the run; None: this machine's GPUs, or without any the configuration's
            ``ep_size``.

    Raises:
        ModelError: a wrong SKYSENSE_KERNELS.
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
    if ranks is not None and ranks < 1:
        raise ConfigError(f"--ranks: expected at least 1, found {ranks}")
    if ranks is None:
        ranks = cards or load(path, overrides).settings.ep_size
    local_ranks = ranks
    if cards > 0:
        local_ranks = min(ranks, cards)
    config = load(path, overrides, world_size=ranks)
    facts = needs(config, ranks=ranks, local_ranks=local_ranks)
    setting = Setting(path=path, overrides=tuple(overrides), world_size=ranks, card=CARDS["h100"])
    return [*facts, *fit(setting, local_ranks=local_ranks)]


def _lacking(path: Path, facts: list[Fact]) -> ConfigError | None:
    """The first thing that is missing as an error, with the names of the others."""
    lacking = [fact for fact in facts if fact.state == MISSING]
    if not lacking:
        return None
    first, *others = lacking
    message = f"{path}: {first.name}: {first.explanation()}"
    if others:
        message += f" (also missing: {', '.join(fact.name for fact in others)})"
    return ConfigError(message)


def banner(config: Config) -> list[str]:
    """Two lines for the log of a training: the machine, and what the configuration chose of it."""
    facts = [machine.gpu(), machine.torch_version(), machine.nccl(), machine.cores()]
    return [
        "machine: " + " | ".join(f"{fact.name} {fact.reason}" for fact in facts),
        "paths: " + " | ".join(f"{fact.name}: {fact.reason}" for fact in choices(config)),
    ]
