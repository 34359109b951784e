"""A run that goes back to an earlier checkpoint stays on its new line."""

import shutil

from engine.checkpoint.files import newest, read_state
from engine.training.metrics import read
from tests.commands import copy_tree, pretrain
from tests.e2e.conftest import STEPS_ALONE


def test_going_back_moves_later_checkpoints_aside(shards, run_alone, tmp_path):
    run = copy_tree(run_alone.folder, tmp_path / "run")
    old = run / f"checkpoints/step-{STEPS_ALONE:08d}"
    later = run / "checkpoints/step-00000006"
    shutil.copytree(old, later)  # of the branch that is left
    words = ("--set", "skysense.ep_size=1", "--stop_at", STEPS_ALONE + 1)
    done = pretrain(1, shards, run, "--resume", old, *words)
    assert done.returncode == 0, done.stderr

    aside = run / "checkpoints/aside-00000002"
    assert f"the run goes back: step-00000006 and the metrics now lie in {aside}" in done.stdout
    assert (aside / later.name / "manifest.json").exists()
    assert len((aside / "metrics.jsonl").read_text().splitlines()) == STEPS_ALONE
    # "auto" takes the newest, which is the last one written although another had a higher number.
    assert newest(run) == run / f"checkpoints/step-{STEPS_ALONE + 1:08d}"
    state = read_state(newest(run))
    assert (state["attempt"], state["parent"]) == (2, str(old))
    assert read_state(old)["attempt"] == 1
    assert read_state(old)["parent"] is None
    assert len(read(run)) == STEPS_ALONE + 1


def test_a_line_from_another_folder_is_gone_on_before_it_has_saved(shards, run_alone, tmp_path):
    """``auto`` goes back to where the line began, and not to the first step."""
    old = run_alone.folder / f"checkpoints/step-{STEPS_ALONE:08d}"
    words = ("--set", "skysense.ep_size=1", "--stop_at", STEPS_ALONE)
    run = tmp_path / "run"
    for resume in (old, "auto"):
        done = pretrain(1, shards, run, "--resume", resume, *words)
        assert done.returncode == 0, done.stderr
        assert f"continuing from {old} at step {STEPS_ALONE}" in done.stdout
        assert not (run / "checkpoints").exists()
