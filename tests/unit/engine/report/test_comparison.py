"""Comparing runs: differences by hand, runs that do not compare, the command with its picture."""

import json

import matplotlib.image
import numpy as np
import pytest

from engine.report import comparison
from tests.commands import skysense


def run(folder, losses, start=0, names=("loss", "loss/ita")):
    """A run folder whose records hold ``losses``, a row a step."""
    folder.mkdir()
    lines = [
        json.dumps({"step": step, **dict(zip(names, row))})
        for step, row in enumerate(losses, start)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_differences_are_relative_to_the_first_run(tmp_path):
    first = run(tmp_path / "a", [[2.0, 1.0], [4.0, 0.0], [5.0, None], [1.0, 1.0]])
    other = run(tmp_path / "b", [[2.0, 1.1], [3.0, 0.0], [5.0, None], [None, 1.0]])
    runs = comparison.read({"reference": first, "kernels": other})
    found = comparison.distances(runs)
    assert set(found) == {"kernels"}
    np.testing.assert_allclose(found["kernels"]["loss"], [0, 0.25, 0, np.inf])
    np.testing.assert_allclose(found["kernels"]["loss/ita"], [0.1, 0, 0, 0])
    table = comparison.table(found)
    assert "ita" in table and "1.0e-01" in table and "inf" in table


@pytest.mark.parametrize(
    "other,line",
    [
        ({"losses": [[1.0, 1.0]], "start": 1}, "expected steps in common, found none"),
        ({"losses": [[1.0, 1.0]], "names": ("loss", "loss/qsacl")}, "expected the losses of"),
    ],
)
def test_runs_that_do_not_compare_are_refused(tmp_path, other, line):
    folders = {"a": run(tmp_path / "a", [[1.0, 2.0]]), "b": run(tmp_path / "b", **other)}
    with pytest.raises(ValueError, match=line):
        comparison.read(folders)


def test_runs_of_unlike_length_are_compared_over_their_common_steps(tmp_path):
    first = run(tmp_path / "a", [[9.0, 9.0], [2.0, 1.0], [4.0, 2.0]], start=4)
    other = run(tmp_path / "b", [[2.0, 1.1], [3.0, 2.0], [7.0, 7.0], [7.0, 7.0]], start=5)
    runs = comparison.read({"a": first, "b": other})
    assert [history.steps.tolist() for history in runs.values()] == [[5, 6], [5, 6]]
    differences = comparison.distances(runs)
    np.testing.assert_allclose(differences["b"]["loss"], [0, 0.25])
    assert comparison.steps_line(runs) == "steps that all runs have: 5 to 6 (2)"


def test_the_command_prints_and_draws(tmp_path):
    first, other = (
        run(tmp_path / "a", [[2.0, 1.0], [4.0, 2.0]]),
        run(tmp_path / "b", [[2.0, 1.0], [4.2, 2.0]]),
    )
    done = skysense("compare", f"off={first}", f"on={other}", "--plot", tmp_path / "plot.png")
    assert done.returncode == 0 and "5.0e-02" in done.stdout, done.stderr
    picture = matplotlib.image.imread(tmp_path / "plot.png")[..., :3]
    assert min(picture.shape[:2]) > 300 and picture.std() > 0.02
    for wrong, said in (
        ([f"off={first}"], "two or more"),
        ([first, other], "NAME=FOLDER"),
        ([f"off={first}", f"on={tmp_path / 'c'}"], "train first"),
    ):
        done = skysense("compare", *wrong)
        assert (
            done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1
        ), done.stderr
