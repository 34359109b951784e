"""Few rows: a warning at the start, and terms that weigh less."""

from pathlib import Path

import pytest
import torch

from data.shards.dataset import ShardDataset
from data.stream.batches import open_stream
from engine.config.load import load
from engine.errors import ConfigError
from engine.training.inputs import text_problem
from engine.training.loss_terms import LossTerm
from engine.training.objective import hide_frames, to_views
from engine.training.rows import few_rows
from tests.commands import TINY
from tests.paths import CONFIGS, SHIPPED
from tests.unit.objectives import build_objective

BATCH = 4


def lines(path: Path, *overrides: str) -> list[str]:
    config = load(path, overrides)
    return few_rows(config.settings, config.batch_size)


def warnings(name: str, *overrides: str) -> list[str]:
    found = lines(CONFIGS / f"{name}.json", *overrides)
    return [line for line in found if line.startswith("warning: ")]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_configurations_have_rows_for_their_prototypes(path):
    assert not any(line.startswith("warning: ") for line in lines(path))


def test_too_many_prototypes_are_named_with_what_to_do():
    (line,) = warnings("one_gpu", "skysense.model.head.prototypes=65536")
    assert line.startswith("warning: 65536 prototypes are too many for the 16 rows")
    assert "prototypes to at most 512, or train_batch_size to at least 1024" in line
    assert not warnings("one_gpu", "skysense.model.head.prototypes=1023")
    assert warnings("one_gpu", "skysense.model.head.prototypes=1024")
    mean = ("skysense.model.head.prototypes=65536", "skysense.loss.centring=mean")
    assert lines(CONFIGS / "one_gpu.json", *mean) == []


def test_the_log_says_how_much_an_image_level_weighs():
    (line,) = lines(CONFIGS / "one_gpu.json")
    assert "at most 16 for an image level, whose term weighs 0.12 of" in line
    assert lines(CONFIGS / "one_gpu.json", "skysense.loss.full_weight_rows=16") == []
    assert lines(CONFIGS / "paper_128gpu.json") == []


@pytest.fixture(scope="module")
def case(shards):
    """Settings, dataset and a batch in which the sensors have rows of unlike number."""
    overrides = [
        f"skysense.data.shards={shards}",
        "skysense.ep_size=1",
        "skysense.loss.full_weight_rows=7",
        f"train_batch_size={BATCH}",
    ]
    dataset = ShardDataset.open(shards)
    settings = load(TINY, overrides, world_size=1).settings
    batch = next(
        iter(open_stream(dataset, settings.data, seed=0, batch_size=BATCH, steps=range(2)))
    )
    return overrides, dataset, batch


@pytest.mark.parametrize("centring", ["sinkhorn", "mean"])
def test_terms_with_few_rows_weigh_less(case, centring):
    overrides, dataset, batch = case
    settings = load(TINY, [*overrides, f"skysense.loss.centring={centring}"], world_size=1).settings
    objective = build_objective(settings, dataset)
    views = to_views(batch, torch.device("cpu"))
    with torch.no_grad():
        targets = objective.teacher(views)
        outputs = objective.student(hide_frames(views, batch))
        losses = objective(outputs, targets, batch, temperature=0.05)
    total = 0.0
    smaller = 0
    for name, value in losses.terms.items():
        head = LossTerm(name).head
        expected = {"ita": settings.loss.ita, "moe_balance": settings.loss.moe_balance}.get(name, 1)
        if head is not None and centring == "sinkhorn":
            share = min(1.0, float(losses.statistics[head.statistic("rows")]) / 7)
            smaller += share < 1
            expected = share
        assert float(losses.weights[name]) == pytest.approx(expected)
        total += expected * float(value)
    assert float(losses.total) == pytest.approx(total, rel=1e-5)
    assert (smaller > 0) == (centring == "sinkhorn")


def test_random_text_must_be_asked_for(shards):
    demo = load(TINY).settings
    assert text_problem(demo) is None
    for changes in (("skysense.text.weights=/a.pt",), ("skysense.loss.ita=0",)):
        assert text_problem(load(TINY, ["skysense.text.random=false", *changes]).settings) is None
    settings = load(TINY, ["skysense.text.random=false", "skysense.ep_size=1"]).settings
    assert text_problem(settings).startswith("skysense.text.weights: expected open_clip weights")
    with pytest.raises(ConfigError, match="skysense.text.random=true"):
        build_objective(settings, ShardDataset.open(shards))


def test_only_demonstrations_train_against_random_text():
    unasked = {path.stem for path in SHIPPED if text_problem(load(path).settings) is None}
    assert unasked == {
        "demo_cpu",
        "demo_one_process",
        "cpu_20_steps",
        "table_07_without_image_text",
    }
