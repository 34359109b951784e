"""A run that diverges goes back to its last healthy checkpoint, and skips the samples since then.

Some samples give gradients that are not finite, whenever they are used. Each step has two samples,
one a rank.
"""

import json
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from data.stream.mixture import Mixture
from data.stream.order import Order
from engine.checkpoint.files import MANIFEST, STATE, complete, manifest, read_state, stamp
from engine.config.load import load
from engine.training import metrics
from engine.training.rollback import FILE, read
from tests.commands import copy_tree
from tests.e2e.faults import spoil
from tests.e2e.faults.starts import SMALL, Ranks, start_ranks, start_words
from tests.e2e.faults.starts import Order as Start
from tests.e2e.test_resume import without_timing

STEPS = 8
BATCH = 2
PATIENCE = 3
GOOD = 2  # steps before the bad ones
# The bad ones begin behind the first two steps, and again three steps after the first rollback.
BAD = [*range(GOOD, GOOD + PATIENCE), *range(STEPS, STEPS + PATIENCE)]  # in steps of the order


def words(run_dir: Path, shards: Path) -> list[str]:
    """The command line of the run, up to where it goes on."""
    settings = {
        "skysense.schedule.steps": STEPS,
        "skysense.guard.action": '"rollback"',
        "skysense.guard.rollbacks": 1,
        "skysense.guard.patience": PATIENCE,
        "skysense.checkpoint.every": 1,
        "skysense.checkpoint.keep": STEPS,
        "train_batch_size": BATCH,
    }
    command = start_words(run_dir, shards)
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command


def start(run_dir: Path, shards: Path, *more: object, world: int = 2) -> Ranks:
    """Go on in a run folder."""
    command = [*words(run_dir, shards), "--resume", *map(str, more)]
    return start_ranks(Start(world=world, words=command, run_dir=str(run_dir)))


def spoil_steps(run_dir: Path, shards: Path, steps: Sequence[int]) -> None:
    """Spoil a sample of each of some steps, numbered as if no sample were skipped."""
    config = load(SMALL, [f"skysense.data.shards={shards}", f"train_batch_size={BATCH}"])
    dataset = Mixture.open(config.settings.data)
    order = Order(config.settings.seed, dataset.parts, BATCH)
    assert len(dataset) >= BATCH * (max(steps) + 1)  # else a good step would have a bad sample
    keys = [dataset.entry(order.step(step)[0].sample).key for step in steps]
    spoil.ask_for(run_dir, keys)


def change_state(checkpoint: Path, **values: object) -> None:
    """Let a checkpoint say something else, and be sound."""
    file = checkpoint / STATE
    file.write_text(json.dumps(read_state(checkpoint) | values))
    content = json.loads((checkpoint / MANIFEST).read_text())
    content["files"][STATE] = stamp(file)
    (checkpoint / MANIFEST).write_text(json.dumps(content))


def tensors(checkpoint: Path) -> dict[str, dict]:
    """Size and checksum of all that a run has learned."""
    stamps = manifest(checkpoint)
    return {name: entry for name, entry in stamps.items() if name.endswith(".safetensors")}


def step_folder(run_dir: Path, step: int) -> Path:
    return run_dir / f"checkpoints/step-{step:08d}"


@pytest.fixture(scope="module")
def diverged(shards, tmp_path_factory) -> tuple[Path, str]:
    """A run of two ranks that diverges twice, and may go back once; what it said."""
    run_dir = tmp_path_factory.mktemp("diverged") / "run"
    spoil_steps(run_dir, shards, BAD)
    run = start(run_dir, shards)
    assert run.wait() == 3, run.said
    return run_dir, run.said


@pytest.fixture(scope="module")
def expected(shards, diverged, tmp_path_factory) -> Path:
    """A run that was started from that checkpoint, with its place behind the bad samples."""
    run_dir = tmp_path_factory.mktemp("expected") / "run"
    target = step_folder(run_dir, GOOD)
    shutil.copytree(step_folder(diverged[0], GOOD), target)
    change_state(target, samples=BATCH * (GOOD + PATIENCE))
    run = start(run_dir, shards, "--stop_at", GOOD + PATIENCE)
    assert run.wait() == 0, run.said
    assert all(record["applied"] for record in metrics.read(run_dir))
    return run_dir


def test_it_goes_back_once_and_then_ends(diverged):
    run_dir, said = diverged
    [rollback] = read(run_dir)
    assert (rollback.number, rollback.step, rollback.attempt) == (1, GOOD + PATIENCE, 1)
    assert rollback.folder(run_dir) == step_folder(run_dir, GOOD)
    assert (rollback.first_sample, rollback.next_sample) == (
        BATCH * GOOD,
        BATCH * (GOOD + PATIENCE),
    )
    # What was left is whole, with its log.
    aside = run_dir / "checkpoints/aside-00000001-1"
    assert [folder.name for folder in complete(aside)] == ["step-00000003", "step-00000004"]
    assert len((aside / metrics.FILE).read_text().splitlines()) == GOOD + PATIENCE
    line = (
        f"rollback 1 after {GOOD + PATIENCE} steps, because {PATIENCE} updates in a row were "
        f"skipped: back to {step_folder(run_dir, GOOD)}, the {BATCH * PATIENCE} samples since then "
        f"are skipped; step-00000003, step-00000004 and the metrics now lie in {aside}"
    )
    assert line in said.splitlines()
    assert said.count("its loss is finite and its gradients are not") == 2 * PATIENCE
    # The second time is one too many.
    assert "does not go back: guard.rollbacks is 1, and 1 were made" in said
    assert f"run ended after {STEPS} of {STEPS} steps: the guard stopped it" in said
    applied = [record["applied"] for record in metrics.read(run_dir)]
    assert applied == [True] * (STEPS - PATIENCE) + [False] * PATIENCE


def test_it_has_the_bits_of_a_run_that_never_met_those_samples(diverged, expected):
    run_dir, _ = diverged
    for step in range(GOOD + 1, GOOD + PATIENCE + 1):
        folder = step_folder(run_dir, step)
        assert tensors(folder) == tensors(step_folder(expected, step))
        assert read_state(folder)["samples"] == BATCH * (step + PATIENCE)
        assert read_state(folder)["rollbacks"] == 1
    others = {record["step"]: without_timing(record) for record in metrics.read(run_dir)}
    for record in metrics.read(expected):
        assert without_timing(record) == others[record["step"]]


def test_one_that_is_killed_behind_the_line_goes_back_to_the_same(
    shards, diverged, expected, tmp_path
):
    run_dir = tmp_path / "run"
    shutil.copytree(step_folder(diverged[0], GOOD), step_folder(run_dir, GOOD))
    spoil_steps(run_dir, shards, BAD)
    run = start(run_dir, shards, "--set", f"skysense.checkpoint.every={2 * STEPS}")
    run.wait_for((run_dir / FILE).exists, pause=0.001)
    for rank in run.ranks():
        os.kill(rank, signal.SIGKILL)
    run.wait()
    [before] = read(run_dir)
    assert complete(run_dir / "checkpoints") == [step_folder(run_dir, GOOD)]

    run = start(run_dir, shards, "--stop_at", GOOD + PATIENCE)
    assert run.wait() == 0, run.said
    assert f"continuing from {step_folder(run_dir, GOOD)} at step {GOOD}" in run.said
    assert f"behind rollback 1: with sample {BATCH * (GOOD + PATIENCE)}" in run.said
    assert read(run_dir) == [before]
    folder = step_folder(run_dir, GOOD + PATIENCE)
    assert tensors(folder) == tensors(step_folder(expected, GOOD + PATIENCE))
    assert read_state(folder)["rollbacks"] == 1


def test_one_rank_goes_back_from_a_spike_that_lasts(shards, diverged, tmp_path):
    """The loss is far above what the guard remembers, so each time it diverges at once."""
    run_dir = tmp_path / "run"
    old = step_folder(run_dir, GOOD)
    shutil.copytree(step_folder(diverged[0], GOOD), old)
    guard = read_state(old)["guard"] | {"mean": 0.1, "variance": 1e-4, "steps": 50}
    change_state(old, guard=guard)
    run = start(run_dir, shards, "--set", "skysense.ep_size=1", world=1)
    assert run.wait() == 3, run.said
    [rollback] = read(run_dir)
    assert rollback.step == GOOD + PATIENCE
    assert rollback.reason.startswith("the loss has been above 0.16")
    # Those that were made inside the spike are nothing to go back to.
    aside = complete(run_dir / "checkpoints/aside-00000001-1")
    high = [read_state(folder)["health"]["high_last"] for folder in aside]
    assert high == [1, 2]
    assert run.said.count("has jumped from a mean of 0.1000") == 2
    assert f"continuing from {old} at step {GOOD}" in run.said


def test_going_back_by_hand_forgets_the_rollbacks_behind_that_checkpoint(
    shards, diverged, tmp_path
):
    run_dir = copy_tree(diverged[0], tmp_path / "run")
    first = step_folder(run_dir, 1)
    run = start(run_dir, shards, first, "--stop_at", 1)
    assert run.wait() == 0, run.said
    assert read(run_dir) == []
    aside = run_dir / "checkpoints/aside-00000002"
    assert len(read(aside)) == 1
