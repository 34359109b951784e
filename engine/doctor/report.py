"""The command's output, and the two lines of it that a training prints."""

import json
from dataclasses import asdict
from pathlib import Path

import torch

from engine.config.load import Config, load
from engine.doctor import machine
from engine.doctor.fact import MISSING, Fact
from engine.doctor.needs import choices, needs
from engine.doctor.packages import packages
from engine.errors import ConfigError


def doctor_command(
    config: Path | None, overrides: list[str], ranks: int | None, as_json: bool
) -> int:
    """Print what is active and why, and what a configuration needs; returns 0.

    ``ranks``: of the run; None takes this machine's GPUs, or without any the configuration's
    ``ep_size``. Raises ConfigError, after printing, for a configuration that is wrong or needs what
    is not here; ModelError for a wrong SKYSENSE_KERNELS.
    """
    here = {"machine": machine.machine(), "packages": packages()}
    error = None
    if config is not None:
        try:
            here[f"{config}"] = facts = _needs(config, overrides, ranks)
            error = _lacking(config, facts)
        except ConfigError as wrong:
            error = wrong
    if as_json:
        print(
            json.dumps(
                {name: [asdict(fact) for fact in facts] for name, facts in here.items()}, indent=2
            )
        )
    else:
        for name, facts in here.items():
            print(name, *(fact.line() for fact in facts), sep="\n")
    if error is not None:
        raise error
    return 0


def _needs(path: Path, overrides: list[str], ranks: int | None) -> list[Fact]:
    """Facts of a configuration."""
    cards = torch.cuda.device_count()
    ranks = ranks or cards or load(path, overrides).settings.ep_size
    return needs(load(path, overrides, ranks), ranks, min(ranks, cards or ranks))


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
