"""Faults drawn at random, one after the other, into one real run on two ranks.

    make faults FAULTS=20 SEED=7

After each fault nothing of the run is left running and one line says why it ended. The next start
continues from the newest checkpoint. In the end every step equals that of a run without faults, bit
for bit.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from engine.training.metrics import read
from tests.commands import trained
from tests.e2e.runs import Training, start
from tests.e2e.test_resume import without_timing
from tests.e2e.test_signals import ctrl_c, hang_up, kill_the_command, to_the_command, to_the_group

STEPS = 1000  # of the schedule; a run stops long before
SETTINGS = {
    "schedule.steps": STEPS,
    "checkpoint.every": 5,
    "data.workers": 1,
    "data.loader_patience": 5,
    "watchdog.silence": 10,
}
SAVED = "a signal asked for it"


@dataclass(frozen=True)
class Fault:
    """A kind of fault.

    Attributes:
        inject: does it to a run.
        says: what the log has then.
        ends: whether the run ends by itself.
    """

    inject: Callable[[Training, random.Random], None]
    says: str
    ends: bool = True


def to_a_rank(number: int) -> Callable[[Training, random.Random], None]:
    return lambda run, rng: os.kill(rng.choice(run.ranks()), number)


def to_a_loader(number: int) -> Callable[[Training, random.Random], None]:
    return lambda run, rng: os.kill(run.loaders(rng.randrange(2))[0], number)


def stop_file(run: Training, rng: random.Random) -> None:
    (run.run_dir / "STOP").touch()


def plain(send: Callable[[Training], None]) -> Callable[[Training, random.Random], None]:
    return lambda run, rng: send(run)


FAULTS = {
    "SIGKILL of a rank": Fault(to_a_rank(signal.SIGKILL), "has ended without a word"),
    "SIGSTOP of a rank": Fault(to_a_rank(signal.SIGSTOP), "no heartbeat for"),
    "SIGTERM to a rank": Fault(to_a_rank(signal.SIGTERM), SAVED),
    "SIGTERM to the command": Fault(plain(to_the_command), SAVED),
    "SIGTERM to the group": Fault(plain(to_the_group), SAVED),
    "SIGKILL of the command": Fault(plain(kill_the_command), SAVED),
    "Ctrl-C": Fault(plain(ctrl_c), SAVED),
    "SIGHUP": Fault(plain(hang_up), SAVED),
    "stop file": Fault(stop_file, "a stop file asked for it"),
    "SIGKILL of a loader": Fault(to_a_loader(signal.SIGKILL), "was killed by SIGKILL", ends=False),
    "SIGSTOP of a loader": Fault(to_a_loader(signal.SIGSTOP), "gave nothing for", ends=False),
    "SIGTERM to a loader": Fault(to_a_loader(signal.SIGTERM), "step ", ends=False),
}


def options() -> list[str]:
    words = []
    for name, value in SETTINGS.items():
        words += ["--set", f"skysense.{name}={value}"]
    return words


def suffer(run: Training, fault: Fault, rng: random.Random) -> None:
    """Hurt a run at a random moment behind its first step, and wait for its end."""
    before = len(run.said)
    run.wait_for_steps(run.steps() + 1)
    time.sleep(rng.uniform(0, 3))
    fault.inject(run, rng)
    if not fault.ends:
        run.wait_for(lambda: fault.says in run.said[before:])
        run.wait_for_steps(run.steps() + 2)
        to_the_command(run)
    run.wait()
    assert fault.says in run.said[before:], run.said[before:]
    assert "Traceback" not in run.said[before:]


@pytest.mark.long
def test_every_fault_leaves_a_run_that_goes_on_to_the_same_bits(shards, tmp_path):
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
    count = int(os.environ.get("FAULTS", len(FAULTS)))
    print(f"SEED={seed}")
    rng = random.Random(seed)
    kinds = list(FAULTS)
    drawn: Counter[str] = Counter()
    for _ in range(count):
        kind = rng.choice(kinds)
        run = start(2, shards, tmp_path / "run", *options(), "--resume", "auto")
        try:
            suffer(run, FAULTS[kind], rng)
        finally:
            run.end()
        drawn[kind] += 1
        print(f"{drawn.total()} of {count}: {kind}", flush=True)
    reached = run.steps() + 1
    ending = ("--stop_at", reached)
    trained(2, shards, tmp_path / "run", *options(), "--resume", "auto", *ending)
    trained(2, shards, tmp_path / "undisturbed", *options(), *ending)
    hurt, whole = read(tmp_path / "run"), read(tmp_path / "undisturbed")
    assert len(whole) == reached
    for one, other in zip(hurt, whole, strict=True):
        assert without_timing(one) == without_timing(other)
    for kind, number in sorted(drawn.items()):
        print(f"| {kind} | {number} |")
