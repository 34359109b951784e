"""A run that goes back leaves a branch aside."""

from pathlib import Path

import pytest

from engine.checkpoint.branches import make_aside, move, off_line


@pytest.fixture
def run(tmp_path) -> Path:
    """A run folder with checkpoints of steps 1 to 4; that of step 4 has no manifest."""
    for step in (1, 2, 3, 4):
        folder = tmp_path / f"run/checkpoints/step-{step:08d}"
        folder.mkdir(parents=True)
        if step < 4:
            (folder / "manifest.json").write_text(str(step))
    (tmp_path / "run/checkpoints/.unfinished-step-00000005").mkdir()
    return tmp_path / "run"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_later_checkpoints_step_aside_whole(run):
    root = run / "checkpoints"
    aside = make_aside(run, "00000007")
    move(off_line(run, root / "step-00000002"), aside)
    assert aside == root / "aside-00000007"
    assert names(aside) == ["step-00000003", "step-00000004"]
    assert (aside / "step-00000003/manifest.json").read_text() == "3"
    rest = [".unfinished-step-00000005", "aside-00000007", "step-00000001", "step-00000002"]
    assert names(root) == rest


def test_nothing_steps_aside_for_the_newest(run):
    assert off_line(run, run / "checkpoints/step-00000004") == []
    assert off_line(run / "nothing", None) == []


def test_the_folder_may_be_named_in_another_way(run, monkeypatch):
    monkeypatch.chdir(run)
    left = off_line(Path(), Path("checkpoints/../checkpoints/step-00000003"))
    assert left == [Path("checkpoints/step-00000004")]


@pytest.mark.parametrize("chosen", ["other/checkpoints/step-00000009", None])
def test_all_step_aside_for_a_checkpoint_of_another_folder(run, chosen):
    if chosen is not None:
        chosen = run.parent / chosen
    left = off_line(run, chosen)
    assert len(left) == 4
    aside = make_aside(run, "00000002")
    move(left, aside)
    # A branch that was left can be continued: nothing of the run leads to it or away from it.
    assert off_line(run, aside / "step-00000001") == []
