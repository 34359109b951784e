"""A run that goes back leaves a branch aside."""

from pathlib import Path

import pytest

from engine.checkpoint.branches import leave_branch


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
    aside = leave_branch(run, root / "step-00000002", attempt=7)
    assert aside == root / "aside-00000007"
    assert names(aside) == ["step-00000003", "step-00000004"]
    assert (aside / "step-00000003/manifest.json").read_text() == "3"
    rest = [".unfinished-step-00000005", "aside-00000007", "step-00000001", "step-00000002"]
    assert names(root) == rest


def test_nothing_steps_aside_for_the_newest(run):
    root = run / "checkpoints"
    before = names(root)
    assert leave_branch(run, root / "step-00000004", attempt=7) is None
    assert leave_branch(run / "nothing", None, attempt=1) is None
    assert names(root) == before


def test_the_folder_may_be_named_in_another_way(run, monkeypatch):
    monkeypatch.chdir(run)
    aside = leave_branch(Path(), Path("checkpoints/../checkpoints/step-00000003"), attempt=1)
    assert names(aside) == ["step-00000004"]


@pytest.mark.parametrize("chosen", ["other/checkpoints/step-00000009", None])
def test_all_step_aside_for_a_checkpoint_of_another_folder(run, chosen):
    if chosen is not None:
        chosen = run.parent / chosen
    aside = leave_branch(run, chosen, attempt=2)
    assert len(names(aside)) == 4
    # A branch that was left can be continued: its own later ones and the new line step aside.
    back = leave_branch(run, aside / "step-00000001", attempt=3)
    assert back is None
