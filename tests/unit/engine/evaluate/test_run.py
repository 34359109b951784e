"""The whole evaluation on small shards whose brightness tells the class."""

import json

import numpy as np
import pytest

from data.errors import InputError
from data.shards.writer import write_shards
from engine.errors import ConfigError
from engine.evaluate.features import STAGE_4
from engine.evaluate.judge import TEACHER
from engine.evaluate.picture import draw
from engine.evaluate.probing import KNN, LINEAR
from engine.evaluate.question import Question
from engine.evaluate.run import PCA, RAW, as_json, evaluate
from engine.evaluate.table import text
from models.initialise import initialise
from models.pretraining.model import Pretraining
from tests.unit.checkpoints import write_checkpoint
from tests.unit.engine.evaluate.test_features import SPEC
from tests.unit.tiles import make_tile

TILES = 48
CLASSES = ("dark", "grey", "light")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Shards, labels and the checkpoint of a model that was never trained."""
    folder = tmp_path_factory.mktemp("evaluate")
    tiles = []
    lines = ["key,label,split,group"]
    for number in range(TILES):
        tile = make_tile(f"t{number}", number, cells=2, modalities=("hr",), clouds=0.0)
        tile.crs = ""
        tile.lon = None
        tile.lat = None
        kind = number % 3
        tile.arrays["hr"] = (tile.arrays["hr"] // 4 + 60 * kind).astype(np.uint8)
        tile.arrays["labels"][:] = [0, 3, 7][kind]
        tile.arrays["labels"][:8, :8] = 255
        tiles.append(tile)
        split = "test" if number >= 30 else "train"
        lines.append(f"t{number},{CLASSES[kind]},{split},g{number // 2}")
    write_shards(tiles, folder / "shards")
    (folder / "labels.csv").write_text("\n".join(lines) + "\n")
    several = ["key,label", *[f"t{n},{CLASSES[n % 3]};tile" for n in range(TILES - 1)], "t47,"]
    (folder / "several.csv").write_text("\n".join(several) + "\n")
    model = Pretraining(SPEC)
    initialise(model, 7)
    write_checkpoint(folder / "run", model.eval())
    return folder


def asked(folder, **changes) -> Question:
    question = {
        "model": folder / "run",
        "data": str(folder / "shards"),
        "labels": folder / "labels.csv",
        "features": (STAGE_4,),
        "seeds": 2,
        **changes,
    }
    return Question(**question)


def silent(line: str) -> None:
    """Takes no line of progress."""


@pytest.fixture(scope="module")
def answer(folder):
    return evaluate(asked(folder), silent)


def test_what_is_easy_is_found(answer):
    assert answer.kind == "classification"
    assert answer.sensors == ["hr"]
    assert answer.parts == ["24 train, 6 validation, 18 test"]
    for rows in answer.rows.values():
        by_method = {row.method: row for row in rows}
        assert by_method[RAW].figures["accuracy"].value > 0.8  # chance is 0.33
        assert by_method[PCA].figures["accuracy"].value > 0.6
    assert list(answer.rows[KNN][0].sweep) == [1, 5, 10, 20, 100, 200]
    assert answer.rows[LINEAR][0].sweep == {}
    for comparison in answer.comparisons:
        assert not comparison.beats
        assert comparison.gain.low <= comparison.gain.value <= comparison.gain.high
    assert answer.commonest == pytest.approx(1 / 3)


def test_the_same_question_has_the_same_answer(folder, answer):
    assert as_json(evaluate(asked(folder), silent)) == as_json(answer)


def test_the_answer_is_shown(folder, answer):
    shown = text(answer)
    assert f"\n{TEACHER} " in shown
    assert "verdict: k-NN, accuracy: " in shown
    assert "verdict: linear, accuracy: " in shown
    record = json.loads(json.dumps(as_json(answer), allow_nan=False))
    assert record["comparisons"][0]["verdict"] == str(answer.comparisons[0])
    figure = draw(asked(folder), answer)
    assert len(figure.axes) == 2 + 4 * 5


def test_several_classes_a_tile(folder):
    several = evaluate(asked(folder, labels=folder / "several.csv", folds=3, seeds=1), silent)
    assert several.kind == "multi-label"
    assert several.classes == ["dark", "grey", "light", "tile"]
    assert len(several.parts) == 3
    row = {row.method: row for row in several.rows[KNN]}[RAW]
    assert list(row.figures) == ["macro mAP", "micro mAP", "macro F1", "micro F1"]
    assert row.figures["macro mAP"].value > 0.85


def test_the_labels_of_the_shards_are_classified_by_cell(folder):
    cells = evaluate(asked(folder, labels=None, grid=2, seeds=1), silent)
    assert cells.kind == "segmentation"
    assert cells.items == 3 * TILES  # of four cells one has no label
    row = {row.method: row for row in cells.rows[LINEAR]}[RAW]
    assert row.figures["mIoU"].value > 0.8
    assert len(cells.parts) == 5  # nobody has named a test part


@pytest.mark.parametrize(
    "changes, error, line",
    [
        ({"features": ("stage9",)}, ConfigError, "--features: expected some of 'stage3'"),
        ({"zooms": (0.0,)}, ConfigError, "--zoom: expected numbers above 0"),
        ({"seeds": 0}, ConfigError, "--seeds: expected at least 1, found 0"),
        ({"sensors": ("ms",)}, ConfigError, "--sensors: expected some that both the model"),
        ({"folds": 99}, InputError, "expected items in every part"),
    ],
)
def test_wrong_questions_are_refused(folder, changes, error, line):
    with pytest.raises(error, match=line):
        evaluate(asked(folder, **changes), silent)


def test_labels_of_other_tiles_are_refused(folder, tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("key,label\nx,y\n")
    with pytest.raises(InputError, match="expected keys of .*, such as 't"):
        evaluate(asked(folder, labels=path), silent)
