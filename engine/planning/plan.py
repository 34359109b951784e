"""The plan of a run: what it needs of a kind of GPU, and how long it takes."""

import multiprocessing
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection
from pathlib import Path

from engine.config.load import Config, load
from engine.errors import USER_ERRORS, ConfigError
from engine.planning.cards import Card
from engine.planning.communication import Traffic, traffic_of
from engine.planning.memory import Memory, memory_of
from engine.planning.recorder import Kind, Work
from engine.planning.rehearsal import rehearse
from engine.planning.time import Efficiency, PartTime, time_of

SPARE = 0.1  # of the card's memory: for CUDA, NCCL and what a plan does not see
PAPER_HOURS = 44_500  # of an H20, for the paper's run
HOUR = 3600
DAY = 24 * HOUR


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a run needs on a kind of card."""

    card: Card
    world_size: int
    batch_size: int  # samples of a step over all ranks
    steps: int
    recompute: str
    ep_size: int
    memory: Memory
    traffic: list[Traffic]
    work: dict[Kind, Work]
    efficiency: Efficiency

    @cached_property
    def parts(self) -> dict[str, PartTime]:
        """The parts of a step with their seconds."""
        return time_of(self.work, self.traffic, self.card, self.efficiency)

    def calibrated(self, step_time: float) -> "Plan":
        """The plan with the efficiencies that a measured step of ``step_time`` seconds shows."""
        efficiency = self.efficiency.slower(step_time / self.step_time)
        return replace(self, efficiency=efficiency)

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
            "fits": self.fits,
            "memory": {
                "reserved": self.memory.reserved,
                "allocated": self.memory.allocated,
                "items": self.memory.items(),
                "moments": moments,
            },
            "communication": [asdict(exchange) for exchange in self.traffic],
            "efficiency": asdict(self.efficiency),
            "time": {name: asdict(part) for name, part in self.parts.items()},
            "step_seconds": self.step_time,
            "samples_per_second": self.samples_per_second,
            "days": self.days,
            "gpu_hours": self.gpu_hours,
        }


def plan(
    path: Path, overrides: Sequence[str], *, world_size: int, card: Card, efficiency: Efficiency
) -> Plan:
    """Plan a run. The rehearsal has a process of its own, so a process can make many plans.

    Raises:
        ConfigError: The configuration is wrong or does not suit the number of ranks.
    """
    config = load(path, overrides, world_size=world_size)
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(
        target=_send_plan, args=(sender, config, world_size, card, efficiency)
    )
    process.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise RuntimeError(
            f"plan: expected an answer of the rehearsal, found that it ended with status "
            f"{process.exitcode}; its traceback stands above"
        ) from None
    process.join()
    if isinstance(answer, str):
        raise ConfigError(answer)
    return answer


def _send_plan(
    sender: Connection, config: Config, world_size: int, card: Card, efficiency: Efficiency
) -> None:
    """Rehearse in this process and send the plan, or the line of an error of the user's."""
    try:
        rehearsal = rehearse(config, world_size, card.chip)
    except USER_ERRORS as error:
        sender.send(str(error))
        return
    answer = Plan(
        card=card,
        world_size=world_size,
        batch_size=config.batch_size,
        steps=config.settings.schedule.steps,
        recompute=config.settings.recompute,
        ep_size=config.settings.ep_size,
        memory=memory_of(rehearsal, card.chip),
        traffic=traffic_of(rehearsal.collectives, card),
        work=rehearsal.work,
        efficiency=efficiency,
    )
    sender.send(answer)
