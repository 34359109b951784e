"""Makes plans. Each rehearsal has a process of its own, and several run at once."""

import io
import logging
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess

from engine.config.load import Config, load
from engine.errors import USER_ERRORS, ConfigError
from engine.planning.communication import traffic_of
from engine.planning.memory import memory_of
from engine.planning.plan import Plan, Setting
from engine.planning.rehearsal import rehearse
from models.kernels.dispatch import VARIABLE


def plan(setting: Setting) -> Plan:
    """Plan a run.

    Raises:
        ConfigError: The configuration is wrong or does not suit the number of ranks.
    """
    [made] = plan_all([setting], say=None)
    return made


def plan_all(settings: Sequence[Setting], *, say: Callable[[str], None] | None) -> list[Plan]:
    """The plans of several settings, as many at a time as there are cores.

    Args:
        settings: What to plan.
        say: Takes a line of progress after each plan; None: nobody wants it.

    Raises:
        ConfigError: A configuration is wrong or does not suit its number of ranks.
    """
    waiting: deque[tuple[int, Setting, Config]] = deque()
    for number, setting in enumerate(settings):
        config = load(setting.path, setting.overrides, world_size=setting.world_size)
        waiting.append((number, setting, config))
    running: dict[Connection, _Rehearsing] = {}
    plans: dict[int, Plan] = {}
    try:
        while waiting or running:
            while waiting and len(running) < number_at_once():
                rehearsing = _start(*waiting.popleft())
                running[rehearsing.receiver] = rehearsing
            for receiver in wait(list(running)):
                assert isinstance(receiver, Connection)
                ended = running.pop(receiver)
                plans[ended.number] = ended.answer()
                if say is not None:
                    say(f"{len(plans)} of {len(settings)} plans made")
    finally:
        for rehearsing in running.values():
            rehearsing.process.terminate()
            rehearsing.process.join()
    return [plans[number] for number in range(len(settings))]


def number_at_once() -> int:
    """How many plans are made at a time."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class _Rehearsing:
    """A process that makes a plan."""

    number: int  # of the plan
    process: BaseProcess
    receiver: Connection

    def answer(self) -> Plan:
        """What it has sent."""
        try:
            answer = self.receiver.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(
                f"plan: expected an answer of the rehearsal, found that it ended with status "
                f"{self.process.exitcode}; its traceback stands above"
            ) from None
        self.process.join()
        if isinstance(answer, str):
            raise ConfigError(answer)
        return answer


def _start(number: int, setting: Setting, config: Config) -> _Rehearsing:
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send_plan, args=(sender, setting, config))
    process.start()
    sender.close()
    return _Rehearsing(number, process, receiver)


def _send_plan(sender: Connection, setting: Setting, config: Config) -> None:
    """Rehearse in this process and send the plan, or the line of an error of the user's."""
    os.environ[VARIABLE] = setting.kernels
    logging.disable(logging.INFO)  # what a run says of its paths
    try:
        with redirect_stdout(io.StringIO()):  # what DeepSpeed says of its groups
            rehearsal = rehearse(config, setting.world_size, setting.card.chip)
    except USER_ERRORS as error:
        sender.send(str(error))
        return
    settings = config.settings
    fusion = settings.model.fusion
    answer = Plan(
        setting=setting,
        batch_size=config.batch_size,
        steps=settings.schedule.steps,
        recompute=settings.recompute,
        ep_size=settings.ep_size,
        cells_per_token=None if fusion is None else fusion.cells_per_token,
        memory=memory_of(rehearsal, setting.card.chip),
        traffic=traffic_of(rehearsal.collectives, setting.card),
        work=rehearsal.work,
    )
    sender.send(answer)
