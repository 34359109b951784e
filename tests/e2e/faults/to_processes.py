"""Signals to the processes of a run, and too little memory for one."""

import os
import random
import resource
import signal
from collections.abc import Callable

from tests.e2e.faults.chain import Chain
from tests.e2e.runs import Training
from tests.e2e.test_signals import ctrl_c, hang_up, kill_the_command, to_the_command, to_the_group

Kind = Callable[[Chain, random.Random], None]

DIED = "has ended without a word"
SAVED = "a signal asked for it"
_MEGABYTE = 2**20


def to_a_rank(number: int, *causes: str) -> Kind:
    """A signal to one rank, of which the run ends."""

    def kind(chain: Chain, rng: random.Random) -> None:
        run = chain.go(rng)
        os.kill(rng.choice(run.ranks()), number)
        chain.ended(run, *causes)

    return kind


def to_the_launcher(send: Callable[[Training], None]) -> Kind:
    """A signal to the ``deepspeed`` command or its group: all ranks save and end."""

    def kind(chain: Chain, rng: random.Random) -> None:
        run = chain.go(rng, command=True)
        send(run)
        chain.ended(run, SAVED)

    return kind


def to_a_loader(number: int, cause: str) -> Kind:
    """A signal to a process of the loader, which the run survives."""

    def kind(chain: Chain, rng: random.Random) -> None:
        run = chain.go(rng)
        [loader] = run.loaders(rng.randrange(chain.world))
        os.kill(loader, number)
        run.wait_for(lambda: cause in run.said)
        end_well(chain, run)

    return kind


def stop_file(chain: Chain, rng: random.Random) -> None:
    """A file in the run folder asks the run to end."""
    run = chain.go(rng)
    (chain.run_dir / "STOP").touch()
    chain.ended(run, "a stop file asked for it")


def kill_in_a_save(chain: Chain, rng: random.Random) -> None:
    """SIGKILL of a rank while a checkpoint's folder is hidden."""
    run = chain.go(rng)
    ranks = run.ranks()
    hidden = chain.run_dir / "checkpoints"
    run.wait_for(lambda: any(hidden.glob(".unfinished-*")), pause=0.0005)
    os.kill(rng.choice(ranks), signal.SIGKILL)
    chain.ended(run, DIED)


def kill_in_a_write(chain: Chain, rng: random.Random) -> None:
    """SIGKILL of a rank while threads of the ranks write the files of a checkpoint."""
    run = chain.go(rng)
    ranks = run.ranks()
    hidden = chain.run_dir / "checkpoints"
    run.wait_for(lambda: any(hidden.glob(".unfinished-*/*/*.safetensors")), pause=0.0005)
    os.kill(rng.choice(ranks), signal.SIGKILL)
    chain.ended(run, DIED)


def memory_limit(chain: Chain, rng: random.Random) -> None:
    """A rank gets no more memory."""
    run = chain.go(rng)
    limit = (_MEGABYTE, resource.RLIM_INFINITY)
    resource.prlimit(rng.choice(run.ranks()), resource.RLIMIT_AS, limit)
    chain.ended(run, DIED, "memory", "MemoryError", "no heartbeat for")


def end_well(chain: Chain, run: Training) -> None:
    """Let a run that goes on make two more steps, save and end."""
    run.wait_for_steps(run.steps() + 2)
    os.kill(run.ranks()[0], signal.SIGTERM)
    chain.ended(run, SAVED)


KINDS = {
    "SIGKILL of a rank": to_a_rank(signal.SIGKILL, DIED),
    "SIGKILL of a rank in a save": kill_in_a_save,
    "SIGKILL of a rank in an asynchronous write": kill_in_a_write,
    "SIGSTOP of a rank": to_a_rank(signal.SIGSTOP, "no heartbeat for", "no progress for"),
    "SIGTERM to a rank": to_a_rank(signal.SIGTERM, SAVED),
    "SIGTERM to the launcher": to_the_launcher(to_the_command),
    "SIGTERM to the group": to_the_launcher(to_the_group),
    "SIGKILL of the launcher": to_the_launcher(kill_the_command),
    "Ctrl-C": to_the_launcher(ctrl_c),
    "SIGHUP": to_the_launcher(hang_up),
    "stop file": stop_file,
    "SIGKILL of a loader": to_a_loader(signal.SIGKILL, "was killed by SIGKILL"),
    "SIGSTOP of a loader": to_a_loader(signal.SIGSTOP, "gave nothing for"),
    "SIGTERM to a loader": to_a_loader(signal.SIGTERM, "\nstep "),
    "memory limit": memory_limit,
}
