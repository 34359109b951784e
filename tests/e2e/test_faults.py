"""Faults drawn at random, one after the other, into real runs on two and on four ranks.

    make faults FAULTS=20 SEED=7 KINDS=shard RANKS="2 2 4"

After each fault nothing of the run is left running, one line says why it ended, and all that is
published is whole. The next start continues from the newest sound checkpoint. All along, each step
and each checkpoint equals that of a run without faults, bit for bit.
"""

import os
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.e2e.faults import to_disks, to_files, to_numbers, to_processes, to_starts
from tests.e2e.faults.chain import Chain, Undisturbed
from tests.e2e.faults.starts import Order, start_ranks, start_words

KINDS = {
    **to_processes.KINDS,
    **to_files.KINDS,
    **to_numbers.KINDS,
    **to_starts.KINDS,
    **to_disks.KINDS,
}
STEPS = 120  # at most, of the run without faults
FEW = (  # of four kinds of trouble, for every run of the tests
    "SIGKILL of a rank in an asynchronous write",
    "corrupt file in the newest checkpoint",
    "NaN in one rank's gradient",
    "no inodes",
)


class Chains:
    """The chains of a test, by the number of ranks and the disk, made when they are needed."""

    def __init__(self, folder: Path, shards: Path, *, steps: int):
        """Begin nothing yet.

        Args:
            folder: Of all runs.
            shards: Dataset.
            steps: Of the run without faults; others begin anew before they come that far.
        """
        self.keep_all = ["--stop_at", str(steps), "--set", "skysense.checkpoint.keep=1000"]
        self.folder = folder
        self.shards = shards
        self.undisturbed: dict[int, Undisturbed] = {}
        self.chains: dict[tuple[int, bool], Chain] = {}

    def suffer(self, kind: str, rng: random.Random, world: int) -> None:
        """Do one fault to one of them."""
        chain = self._get(world, small_disk=kind in to_disks.KINDS)
        try:
            KINDS[kind](chain, rng)
        except BaseException:
            chain.give_up()
            raise

    def end(self) -> None:
        """Let each go on once more, so that its last fault is judged too."""
        for chain in self.chains.values():
            chain.end()

    def close(self) -> None:
        """Clear away what is left."""
        for chain in self.chains.values():
            chain.close()

    def _get(self, world: int, *, small_disk: bool) -> Chain:
        key = (world, small_disk)
        if key not in self.chains:
            self.chains[key] = Chain(
                self.folder / f"chain-{len(self.chains)}",
                world=world,
                shards=self.shards,
                undisturbed=self._undisturbed(world),
                small_disk=small_disk,
            )
        return self.chains[key]

    def _undisturbed(self, world: int) -> Undisturbed:
        """The run without faults, which is made once."""
        if world not in self.undisturbed:
            run_dir = self.folder / f"undisturbed-{world}"
            words = start_words(run_dir, self.shards)
            run = start_ranks(Order(world, words + self.keep_all, str(run_dir)))
            assert run.wait() == 0, run.said
            self.undisturbed[world] = Undisturbed.of(run_dir)
            shutil.rmtree(run_dir)
        return self.undisturbed[world]


@contextmanager
def chains_of(steps: int, *, shards: Path, folder: Path) -> Iterator[Chains]:
    """Chains whose processes and disks are gone in the end."""
    chains = Chains(folder, shards, steps=steps)
    try:
        yield chains
    finally:
        chains.close()


def possible() -> list[str]:
    """The kinds of faults that this user can cause here."""
    kinds = list(KINDS)
    if os.geteuid() != 0:
        print("no small disks: expected the rights of root, which mounting takes")
        kinds = [kind for kind in kinds if kind not in to_disks.KINDS]
    chosen = os.environ.get("KINDS", "")
    return [kind for kind in kinds if chosen in kind]


def draw(count: int, rng: random.Random) -> list[str]:
    """Kinds at random, none of them a second time before all had their turn."""
    drawn: list[str] = []
    while len(drawn) < count:
        turn = possible()
        rng.shuffle(turn)
        drawn += turn
    return drawn[:count]


@pytest.mark.long
def test_every_fault_leaves_a_run_that_goes_on_to_the_same_bits(shards, tmp_path):
    seed = int(os.environ.get("SEED", random.SystemRandom().randrange(10**6)))
    count = int(os.environ.get("FAULTS", 200))
    worlds = [int(word) for word in os.environ.get("RANKS", "2 2 4").split()]
    print(f"SEED={seed}", flush=True)
    rng = random.Random(seed)
    kinds = draw(count, rng)
    with chains_of(min(STEPS, 50 + 2 * count), shards=shards, folder=tmp_path) as chains:
        failed = suffer_all(chains, kinds, rng, worlds)
        chains.end()
    for kind, times in sorted(Counter(kinds).items()):
        print(f"| {kind} | {times} | {times - failed[kind]} |")
    assert not failed


def test_some_faults_leave_a_run_that_goes_on_to_the_same_bits(shards, tmp_path):
    kinds = [kind for kind in FEW if kind in possible()]
    with chains_of(48, shards=shards, folder=tmp_path) as chains:
        failed = suffer_all(chains, kinds, random.Random(0), worlds=[2])
        chains.end()
    assert len(kinds) >= 3
    assert not failed


def suffer_all(
    chains: Chains, kinds: list[str], rng: random.Random, worlds: list[int]
) -> Counter[str]:
    """Do faults one after the other, and say how each went; those that went wrong, counted."""
    failed: Counter[str] = Counter()
    for number, kind in enumerate(kinds, 1):
        began = time.monotonic()
        world = rng.choice(worlds)
        outcome = "as expected"
        try:
            chains.suffer(kind, rng, world)
        except AssertionError as error:
            failed[kind] += 1
            outcome = f"FAILED: {error}"
        seconds = time.monotonic() - began
        heading = f"{number} of {len(kinds)}: {kind}, {world} ranks, {seconds:.0f} s"
        print(f"{heading}: {outcome}", flush=True)
    return failed
