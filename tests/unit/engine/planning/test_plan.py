"""A plan of a small run, beside what follows from its parameters alone."""

import json
from dataclasses import replace

import pytest
import torch

from engine.config.load import load
from engine.planning.cards import card_of
from engine.planning.making import plan
from engine.planning.plan import SPARE, Setting
from engine.planning.text import lines_of
from engine.training.models import build_pair
from models.reducer import Reducer
from tests.commands import TINY

WORLD = 4
EP_SIZE = 1
FLOAT32 = 4  # bytes
OVERRIDES = (f"skysense.ep_size={EP_SIZE}", "train_batch_size=4")
TOLERANCE = 0.01  # for the padding of ZeRO's parts


@pytest.fixture(scope="module")
def planned():
    """The plan of a small float32 run."""
    return plan(Setting(path=TINY, overrides=OVERRIDES, world_size=WORLD, card=card_of("h100")))


@pytest.fixture(scope="module")
def parameters():
    """Number of parameters of the student."""
    settings = load(TINY, OVERRIDES).settings
    with torch.device("meta"):
        student = build_pair(settings, Reducer(), empty=True).student
    return sum(parameter.numel() for parameter in student.parameters())


def held(planned, word):
    """Bytes at the fullest moment of the items whose name has a word in it."""
    return sum(size for item, size in planned.memory.items().items() if word in item)


@pytest.mark.parametrize(
    "word, copies, shared",
    [
        ("weights of the student", 1, 1),
        ("weights of the teacher", 1, 1),
        ("master weights", 1, WORLD),
        ("teacher's average", 1, WORLD),
        ("moments", 2, WORLD),
    ],
)
def test_what_stays_in_memory_follows_from_the_parameters(
    planned, parameters, word, copies, shared
):
    expected = FLOAT32 * copies * parameters / shared
    assert held(planned, word) == pytest.approx(expected, rel=TOLERANCE)


def test_every_gradient_is_summed_once_over_all_ranks(planned, parameters):
    size = 0
    for exchange in planned.traffic:
        if exchange.part == "backward" and exchange.size > 1000:
            assert exchange.ranks == WORLD
            size += exchange.size
    assert size == pytest.approx(FLOAT32 * parameters, rel=TOLERANCE)


def test_a_measured_step_scales_the_efficiencies(planned):
    calibrated = planned.calibrated(2 * planned.step_time)
    assert calibrated.step_time == pytest.approx(2 * planned.step_time)
    assert calibrated.memory is planned.memory


def test_it_fits_if_a_tenth_of_the_card_is_left(planned):
    for share, fits in ((0.89, True), (0.91, False)):
        card = replace(planned.card, memory=int(planned.memory.reserved / share))
        assert replace(planned, setting=replace(planned.setting, card=card)).fits == fits
    assert SPARE == 0.1


def test_the_text_shows_every_item_and_what_the_run_costs(planned):
    text = "\n".join(lines_of(planned, price=2.0))
    for item in planned.memory.items():
        assert item in text
    assert f"cost {2 * planned.gpu_hours:,.0f}" in text


def test_the_record_is_json_and_its_items_fill_what_is_reserved(planned):
    record = json.loads(json.dumps(planned.record()))
    assert sum(record["memory"]["items"].values()) == record["memory"]["reserved"]
    assert record["gpu_hours"] == pytest.approx(record["days"] * 24 * WORLD)
