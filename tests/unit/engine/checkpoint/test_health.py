"""What a checkpoint says of the steps before it."""

import json
from pathlib import Path

from engine.checkpoint.files import FORMAT, stamp
from engine.checkpoint.health import Health, health_warning, last_healthy, read_health


def checkpoint(root: Path, step: int, *, skipped_last: int, **more: int) -> Path:
    """A checkpoint without weights."""
    folder = root / f"step-{step:08d}"
    folder.mkdir()
    health = {"steps": 10, "applied": 10 - skipped_last, "skipped_last": skipped_last, **more}
    (folder / "state.json").write_text(json.dumps({"step": step, "health": health}))
    files = {"state.json": stamp(folder / "state.json")}
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}))
    return folder


def test_a_checkpoint_knows_what_the_steps_before_it_did(tmp_path):
    folder = checkpoint(tmp_path, 5, skipped_last=3)
    assert read_health(folder) == Health(steps=10, applied=7, skipped_last=3)
    assert not read_health(folder).is_healthy
    assert read_health(checkpoint(tmp_path, 4, skipped_last=0)).is_healthy


def test_the_last_healthy_one_is_found_behind_diverged_and_damaged_ones(tmp_path):
    folders = [checkpoint(tmp_path, step, skipped_last=0) for step in (1, 2, 3)]
    folders.append(checkpoint(tmp_path, 4, skipped_last=10))
    (folders[2] / "state.json").write_text("{}")
    assert last_healthy(folders) == folders[1]
    assert last_healthy(folders[3:]) is None


def test_the_warning_names_a_better_one(tmp_path):
    good = checkpoint(tmp_path, 1, skipped_last=0)
    bad = checkpoint(tmp_path, 2, skipped_last=812)
    assert health_warning(good) is None
    assert health_warning(bad) == (
        f"warning: {bad}: the last 812 steps before it were skipped, because values were not "
        f"finite; its weights may be worth nothing; the last healthy checkpoint is {good}"
    )


def test_a_checkpoint_inside_a_spike_is_not_healthy(tmp_path):
    good = checkpoint(tmp_path, 1, skipped_last=0)
    bad = checkpoint(tmp_path, 2, skipped_last=0, high_last=7)
    assert last_healthy([good, bad]) == good
    assert health_warning(bad) == (
        f"warning: {bad}: the loss was far above its usual values in the last 7 steps; its weights "
        f"may be worth nothing; the last healthy checkpoint is {good}"
    )
