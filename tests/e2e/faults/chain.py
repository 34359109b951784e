"""A run that is hurt again and again, and must go on to the bits of one that never was."""

import os
import random
import re
import shutil
import signal
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from data.errors import InputError
from engine.checkpoint.files import MANIFEST, complete, manifest, verify
from engine.training.metrics import read
from tests.commands import copy_tree
from tests.e2e.faults.disk import small_disk
from tests.e2e.faults.starts import SMALL, Order, start_ranks, start_words
from tests.e2e.kills import tree
from tests.e2e.runs import Training, start
from tests.e2e.test_resume import without_timing

_ROOM = 40  # steps that are left for a start that is to be hurt
_LATEST = 1.5  # seconds behind a step in which it is hurt
# What the ``deepspeed`` command says of a Ctrl-C that meets it waiting for the ranks.
_INTERRUPTED = re.compile(
    r"^Traceback .*\n  File \"[^\"]*/bin/deepspeed\".*\n(?: .*\n)*KeyboardInterrupt\n", re.MULTILINE
)
_CONTINUING = re.compile(r"^continuing from (\S+) at step (\d+)$", re.MULTILINE)


@dataclass(frozen=True)
class Undisturbed:
    """What a run does that nothing happens to.

    Attributes:
        records: of the metrics file.
        stamps: step -> file of the checkpoint -> its size and checksum.
    """

    records: list[dict]
    stamps: Mapping[int, Mapping[str, dict]]

    @classmethod
    def of(cls, run_dir: Path) -> "Undisturbed":
        """Of a run that has kept all its checkpoints."""
        stamps = {}
        for folder in complete(run_dir / "checkpoints"):
            stamps[int(folder.name[-8:])] = _tensors(folder)
        records = [without_timing(record) for record in read(run_dir)]
        return cls(records, stamps)


def _tensors(folder: Path) -> dict[str, dict]:
    """The stamps of a checkpoint's tensors; its JSON tells of the run's history too."""
    files = manifest(folder)
    return {name: stamp for name, stamp in files.items() if name.endswith(".safetensors")}


def is_whole(folder: Path) -> bool:
    """Whether a checkpoint's files are those of its manifest."""
    try:
        files = manifest(folder)
        verify(folder, files, files)
    except (InputError, UnicodeDecodeError):
        return False
    return True


class Chain:
    """A run folder, and the starts that go on in it."""

    def __init__(
        self,
        folder: Path,
        *,
        world: int,
        shards: Path,
        undisturbed: Undisturbed,
        small_disk: bool = False,
    ):
        """Begin nothing yet.

        Args:
            folder: Of the run folders, of which a new one is begun when the schedule ends.
            world: Number of ranks.
            shards: Dataset, which is copied to be damaged.
            undisturbed: The same run.
            small_disk: Whether each run folder is a small disk of its own.
        """
        self.folder = folder
        self.world = world
        self.undisturbed = undisturbed
        self.small_disk = small_disk
        self.disks = ExitStack()
        self.runs: list[Training] = []
        folder.mkdir(parents=True)
        self.sound_shards = shards
        self.shards = copy_tree(shards, folder / "shards")
        self.number = 0  # of the run folder
        self.expected: Path | None = None  # what the next start must continue from
        self.going_back = False  # whether it must be told so
        self.must_say: list[str] = []  # words that the next start must say
        self._begin()

    @property
    def run_dir(self) -> Path:
        """The present run folder."""
        return self.folder / f"run-{self.number}"

    @property
    def published(self) -> list[Path]:
        """Complete checkpoints, oldest first."""
        return complete(self.run_dir / "checkpoints")

    def start(
        self,
        *words: object,
        command: bool = False,
        world: int | None = None,
        others: Mapping[int, list[str]] | None = None,
    ) -> Training:
        """Go on in the run folder.

        Args:
            words: Further ones of the command line.
            command: Whether the ``deepspeed`` command starts the ranks.
            world: Number of ranks, if it is another.
            others: Words for some ranks alone.
        """
        resume = "auto"
        if self.going_back:
            resume = str(self.expected)
        every = [*map(str, words), "--resume", resume]
        if command:
            run_dir = self.run_dir
            run = start(self.world, self.shards, run_dir, *every, config=SMALL)
            self.runs.append(run)
            return run
        order = Order(
            world=world or self.world,
            words=start_words(self.run_dir, self.shards) + every,
            run_dir=str(self.run_dir),
            others={str(rank): own for rank, own in (others or {}).items()},
        )
        run = start_ranks(order)
        self.runs.append(run)
        return run

    def give_up(self) -> None:
        """End what runs, and begin a new run folder."""
        for run in self.runs:
            run.end()
        self.runs = []
        shutil.rmtree(self.shards)
        copy_tree(self.sound_shards, self.shards)
        if not self.small_disk:
            shutil.rmtree(self.run_dir, ignore_errors=True)
        self.number += 1
        self._begin()

    def close(self) -> None:
        """End what runs, and give the disks back."""
        for run in self.runs:
            run.end()
        self.disks.close()

    def _begin(self) -> None:
        """Nothing is expected of a run's first start."""
        self.expected = None
        self.going_back = False
        self.must_say = []
        if self.small_disk:
            self.disks.close()
            self.disks.enter_context(small_disk(self.run_dir))

    def go(self, rng: random.Random, *, command: bool = False) -> Training:
        """Start, and wait for a random moment behind the first step."""
        if len(read(self.run_dir)) > len(self.undisturbed.records) - _ROOM:
            self.end()
            self.give_up()
        run = self._go_on(command=command)
        time.sleep(rng.uniform(0, _LATEST))
        return run

    def end(self) -> None:
        """Continue once more, so that the last fault is judged too."""
        run = self._go_on()
        os.kill(run.ranks()[0], signal.SIGTERM)
        self.ended(run, "a signal asked for it")

    def _go_on(self, *, command: bool = False) -> Training:
        """Start, and wait for the first step."""
        run = self.start(command=command)
        run.wait_for(lambda: "\nstep " in run.said)
        self._check_origin(run.said)
        return run

    def ended(self, run: Training, *causes: str) -> None:
        """Wait for the end of a run, and look at what it leaves.

        Args:
            run: It must end by itself.
            causes: Words of which one must be in the one line that names the cause.
        """
        run.wait()
        self.says(run, *causes)
        self.sound()

    def says(self, run: Training, *causes: str) -> None:
        """Check that one line names the cause, and that none is an internal error's."""
        said = _INTERRUPTED.sub("", run.said)
        assert "Traceback" not in said, said
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) <= 1, said
        assert any(cause in said for cause in causes), f"expected {causes} in\n{said}"

    def sound(self) -> None:
        """Check that all that is published is whole, and the undisturbed run's bit for bit."""
        for folder in self.published:
            files = manifest(folder)
            verify(folder, files, files)
            expected = self.undisturbed.stamps.get(int(folder.name[-8:]))
            if expected is not None:
                assert _tensors(folder) == expected, folder
        self.same_steps(len(read(self.run_dir)))
        self.expected = None
        if self.published:
            self.expected = self.published[-1]
        self.going_back = False

    def refused(self, run: Training, *words: str) -> None:
        """Check that a start ends with one line before it has changed the run folder."""
        before = tree(self.run_dir)
        assert run.wait() == 2, run.said
        self.says(run, *words)
        for word in words:
            assert word in run.said, run.said
        assert tree(self.run_dir) == before

    def damaged(self, file: Path, before: Path) -> None:
        """Take note that a file of the newest checkpoint was damaged.

        The next start must name it, and continue from the checkpoint before. A manifest can be
        changed in words that say nothing of the files.
        """
        newest = file.parents[len(file.relative_to(self.run_dir).parts) - 3]
        if file.name != MANIFEST:
            self.must_say = [str(file)]
        elif not is_whole(newest):
            self.must_say = [str(newest)]
        if self.must_say:
            self.expected = before

    def continued_in_a_copy(self, world: int) -> None:
        """Let a copy of the run make three steps on another number of ranks, to equal losses."""
        own = self.folder
        self.folder = self.folder / f"copy-{world}"
        self.folder.mkdir()
        copy_tree(own / f"run-{self.number}", self.run_dir)
        begin = int(self.published[-1].name[-8:])
        run = self.start("--stop_at", begin + 3, world=world)
        assert run.wait() == 0, run.said
        records = read(self.run_dir)
        shutil.rmtree(self.folder)
        self.folder = own
        assert len(records) == begin + 3
        for one, other in zip(records, self.undisturbed.records, strict=False):
            for name in one:
                if name.startswith("loss"):
                    assert one[name] == pytest.approx(other[name], rel=1e-5, abs=1e-6), name

    def same_steps(self, number: int) -> None:
        """Check that the first steps were the undisturbed run's."""
        records = read(self.run_dir)[:number]
        for one, other in zip(records, self.undisturbed.records, strict=False):
            assert without_timing(one) == other

    def go_back(self, checkpoint: Path) -> None:
        """Let the next start continue from a checkpoint that is not the newest."""
        self.expected = checkpoint
        self.going_back = True

    def _check_origin(self, said: str) -> None:
        """Check that a start went on where it should."""
        found = _CONTINUING.findall(said)
        if self.expected is None:
            assert not found, said
        else:
            [(folder, _)] = found
            assert Path(folder) == self.expected, said
        for words in self.must_say:
            assert words in said, said
        self.must_say = []
