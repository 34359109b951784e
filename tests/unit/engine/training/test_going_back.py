"""Where a run goes on, and to which checkpoint it goes back."""

import json
from pathlib import Path

import pytest

from engine.checkpoint.files import FORMAT, stamp
from engine.errors import ConfigError
from engine.resilience.lease import Lease
from engine.training.continuing import Origin, find_origin
from engine.training.going_back import NoRollback, find_checkpoint
from engine.training.rollback import Rollback, write


def checkpoint(run: Path, step: int, *, rollbacks: int = 0, skipped: int = 0) -> Path:
    """A checkpoint without weights."""
    folder = run / f"checkpoints/step-{step:08d}"
    folder.mkdir(parents=True)
    state = {"step": step, "rollbacks": rollbacks, "health": {"skipped_last": skipped}}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "weights").write_text("many")
    files = {name: stamp(folder / name) for name in ("state.json", "weights")}
    (folder / "manifest.json").write_text(json.dumps({"format": FORMAT, "files": files}))
    return folder


def damage(folder: Path) -> None:
    (folder / "weights").write_text("few")


def rollback(run: Path, target: str, number: int = 1) -> Rollback:
    """A rollback that is written down."""
    record = Rollback(
        number=number,
        step=6,
        reason="3 updates in a row were skipped",
        checkpoint=target,
        first_sample=8,
        next_sample=24,
        attempt=1,
    )
    write(run, [record])
    return record


def test_a_run_goes_on_with_what_it_wrote_last(tmp_path):
    assert find_origin(tmp_path, "auto") is None
    checkpoint(tmp_path, 2)
    last = checkpoint(tmp_path, 4)
    assert find_origin(tmp_path, "auto") == Origin(last)
    assert find_origin(tmp_path, "elsewhere/step-00000009") == Origin(
        Path("elsewhere/step-00000009")
    )
    with pytest.raises(ConfigError, match="holds checkpoints of an earlier run"):
        find_origin(tmp_path, None)


def test_a_rollback_that_no_checkpoint_followed_is_made_again(tmp_path):
    target = checkpoint(tmp_path, 2)
    left = checkpoint(tmp_path, 4, skipped=2)  # has not stepped aside yet
    record = rollback(tmp_path, "checkpoints/step-00000002")
    assert find_origin(tmp_path, "auto") == Origin(target, record)
    # Only by itself: whoever names a checkpoint wants that one.
    assert find_origin(tmp_path, str(left)) == Origin(left)


def test_a_rollback_that_a_checkpoint_followed_is_history(tmp_path):
    target = checkpoint(tmp_path, 2)
    last = checkpoint(tmp_path, 3, rollbacks=1)
    record = rollback(tmp_path, "checkpoints/step-00000002")
    assert find_origin(tmp_path, "auto") == Origin(last)
    damage(last)
    assert find_origin(tmp_path, "auto") == Origin(target, record)


def test_if_its_checkpoint_is_damaged_the_one_before_takes_its_place(tmp_path, capsys):
    before = checkpoint(tmp_path, 1)
    target = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 4, skipped=2)
    record = rollback(tmp_path, "checkpoints/step-00000002")
    damage(target)
    assert find_origin(tmp_path, "auto") == Origin(before, record)
    assert f"warning: {target / 'weights'}: expected" in capsys.readouterr().out


def test_it_may_lead_to_another_folder(tmp_path):
    target = checkpoint(tmp_path / "other", 9)
    run = tmp_path / "run"
    run.mkdir()
    record = rollback(run, str(target))
    assert find_origin(run, "auto") == Origin(target, record)


def test_a_run_goes_back_to_the_last_healthy_one_that_is_whole(tmp_path):
    first = checkpoint(tmp_path, 1)
    second = checkpoint(tmp_path, 2)
    checkpoint(tmp_path, 3, skipped=1)
    assert find_checkpoint(tmp_path) == second
    damage(second)
    assert find_checkpoint(tmp_path) == first
    damage(first)
    with pytest.raises(NoRollback, match="no healthy checkpoint can be read"):
        find_checkpoint(tmp_path)


def test_a_run_that_has_saved_nothing_healthy_goes_back_to_where_it_began(tmp_path):
    run = tmp_path / "run"
    checkpoint(run, 3, skipped=1)
    with pytest.raises(NoRollback, match="has no healthy checkpoint"):
        find_checkpoint(run)
    origin = checkpoint(tmp_path / "other", 2)
    lease = Lease(run)
    lease.begin(origin)
    lease.close(worked=True)
    assert find_checkpoint(run) == origin
