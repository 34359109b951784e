"""Runs that several tests look at, trained once a session by the real command.

Nobody writes into them: a test that changes a run works on a copy. Else a test's result would
depend on those that ran before it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import pretrain
from tests.e2e.kills import tree

STEPS_ALONE = 4  # of the run on one rank


@dataclass(frozen=True)
class Run:
    """A run folder and what its training printed."""

    folder: Path
    log: str


def held_out(shards: Path) -> list[str]:
    """Options that evaluate the teacher every third step, here on the tiles of training."""
    return [
        "--set",
        f"skysense.evaluate.shards={shards}",
        "--set",
        "skysense.evaluate.every=3",
    ]


def train(world: int, shards: Path, folder: Path, *arguments) -> Run:
    """A training that must succeed, by the launcher if it has several ranks. It looks at
    held-out tiles every third step."""
    launcher = world > 1
    done = pretrain(world, shards, folder, *held_out(shards), *arguments, launcher=launcher)
    log = done.stdout + done.stderr
    assert done.returncode == 0, log[-8000:]
    return Run(folder, log)


def unchanged(run: Run) -> Iterator[Run]:
    """The run, for a fixture; an error at its end if a test wrote into the folder."""
    before = tree(run.folder)
    yield run
    after = tree(run.folder)
    changed = [name for name in before.keys() | after.keys() if before.get(name) != after.get(name)]
    assert changed == [], f"{run.folder}: changed by a test; let it work on a copy"


@pytest.fixture(scope="session")
def run_on_two(shards, tmp_path_factory) -> Iterator[Run]:
    """All six steps of the tiny configuration on two ranks, each with half of the experts.

    There are checkpoints of steps 3 and 6.
    """
    arguments = ["--set", "skysense.checkpoint.every=3"]
    yield from unchanged(train(2, shards, tmp_path_factory.mktemp("two") / "run", *arguments))


@pytest.fixture(scope="session")
def run_alone(shards, tmp_path_factory) -> Iterator[Run]:
    """The first four steps of the same run on one rank."""
    arguments = ["--stop_at", STEPS_ALONE, "--set", "skysense.ep_size=1"]
    yield from unchanged(train(1, shards, tmp_path_factory.mktemp("alone") / "run", *arguments))
