"""The plan of a run: what it needs of a kind of GPU, and how long it takes."""

from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path

from engine.planning.cards import Card
from engine.planning.communication import Traffic
from engine.planning.memory import Memory
from engine.planning.recorder import Kind, Work
from engine.planning.time import Efficiency, PartTime, time_of
from models.kernels.dispatch import wanted

SPARE = 0.1  # of the card's memory: for CUDA, NCCL and what a plan does not see
PAPER_HOURS = 44_500  # of an H20, for the paper's run
HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What is planned."""

    path: Path  # of the configuration
    overrides: tuple[str, ...] = ()  # ``place=value`` of it
    world_size: int = 1
    card: Card
    kernels: str = field(default_factory=wanted)  # as SKYSENSE_KERNELS says it
    efficiency: Efficiency = field(default_factory=Efficiency)

    def changed(self, *overrides: str) -> "Setting":
        """The same with more overrides."""
        return replace(self, overrides=(*self.overrides, *overrides))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs on a kind of card."""

    setting: Setting
    batch_size: int  # samples of a step over all ranks
    steps: int
    recompute: str
    ep_size: int
    cells_per_token: int | None  # fusion cells along a side of a token; None: no fusion
    memory: Memory
    traffic: list[Traffic]
    work: dict[Kind, Work]

    @cached_property
    def parts(self) -> dict[str, PartTime]:
        """The parts of a step with their seconds."""
        return time_of(self.work, self.traffic, self.card, self.setting.efficiency)

    def calibrated(self, step_time: float) -> "Plan":
        """The plan with the efficiencies that a measured step of ``step_time`` seconds shows."""
        efficiency = self.setting.efficiency.slower(step_time / self.step_time)
        return replace(self, setting=replace(self.setting, efficiency=efficiency))

    @property
    def card(self) -> Card:
        """The GPU."""
        return self.setting.card

    @property
    def world_size(self) -> int:
        """Number of ranks."""
        return self.setting.world_size

    @property
    def samples(self) -> int:
        """Samples of a rank in a step."""
        return self.batch_size // self.world_size

    @property
    def fits(self) -> bool:
        """Whether the card keeps ``SPARE`` of its memory."""
        return self.memory.reserved <= (1 - SPARE) * self.card.memory

    @property
    def step_time(self) -> float:
        """Seconds of a step."""
        return sum(part.total for part in self.parts.values())

    @property
    def samples_per_second(self) -> float:
        """Over all ranks."""
        return self.batch_size / self.step_time

    @property
    def days(self) -> float:
        """Of the whole run."""
        return self.steps * self.step_time / DAY

    @property
    def gpu_hours(self) -> float:
        """Of the whole run."""
        return self.steps * self.step_time * self.world_size / HOUR

    def record(self) -> dict:
        """The plan as plain values."""
        moments = [asdict(moment) for moment in self.memory.moments]
        return {
            "gpu": asdict(self.card),
            "world_size": self.world_size,
            "batch_size": self.batch_size,
            "steps": self.steps,
            "recompute": self.recompute,
            "ep_size": self.ep_size,
            "cells_per_token": self.cells_per_token,
            "kernels": self.setting.kernels,
            "fits": self.fits,
            "memory": {
                "reserved": self.memory.reserved,
                "allocated": self.memory.allocated,
                "saved": self.memory.saved,
                "items": self.memory.items(),
                "moments": moments,
            },
            "communication": [asdict(exchange) for exchange in self.traffic],
            "efficiency": asdict(self.setting.efficiency),
            "time": {name: asdict(part) for name, part in self.parts.items()},
            "step_seconds": self.step_time,
            "samples_per_second": self.samples_per_second,
            "days": self.days,
            "gpu_hours": self.gpu_hours,
        }
