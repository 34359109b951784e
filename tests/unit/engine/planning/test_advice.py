"""Other settings and other numbers of ranks, planned for a small run."""

import json

import pytest

from engine.config.load import load
from engine.errors import ConfigError
from engine.planning.advice import (
    Advice,
    advise,
    other_trainings,
    same_training,
    with_other_kernels,
)
from engine.planning.cards import card_of
from engine.planning.making import plan, plan_all
from engine.planning.plan import Setting
from engine.planning.scaling import scale, with_same_batch, with_same_share
from engine.planning.text import advice_lines, scaling_lines
from models.recompute import POLICIES
from tests.commands import TINY

SENSORS = ("ms", "sar")
ONLY_HR = tuple(
    f"skysense.{place}.{sensor}=null"
    for place in ("model.modalities", "data.frames")
    for sensor in SENSORS
)
GIVEN = Setting(path=TINY, overrides=ONLY_HR, world_size=2, card=card_of("h100"), kernels="off")


@pytest.fixture(scope="module")
def plans():
    """The run with less in memory, and as it is: batch 4, experts spread over both ranks."""
    return plan_all([GIVEN.changed("skysense.recompute=blocks"), GIVEN], say=None)


@pytest.fixture(scope="module")
def given(plans):
    """The plan of the run as it is."""
    return plans[1]


def chosen(settings, read):
    """What is read of the configuration of each setting."""
    values = []
    for setting in settings:
        config = load(setting.path, setting.overrides, world_size=setting.world_size)
        values.append(read(config))
    return values


def test_many_plans_at_once_come_in_the_order_asked_for(plans):
    less, given = plans
    assert (less.recompute, given.recompute) == ("blocks", "none")
    assert less.memory.reserved < given.memory.reserved
    assert given.record() == plan(GIVEN).record()


def test_a_wrong_setting_among_good_ones_is_told_before_any_is_planned():
    lines = []
    with pytest.raises(ConfigError, match="train_batch_size"):
        plan_all([GIVEN, GIVEN.changed("train_batch_size=3")], say=lines.append)
    assert lines == []


def test_the_same_training_has_each_way_to_spread_and_to_keep():
    ways = chosen(
        same_training(GIVEN), lambda config: (config.settings.recompute, config.settings.ep_size)
    )
    assert ways == [(policy, size) for size in (1, 2) for policy in POLICIES]
    assert set(chosen(same_training(GIVEN), lambda config: config.batch_size)) == {4}


def test_kernels_are_tried_where_there_are_none(given):
    settings = with_other_kernels(given)
    assert {setting.kernels for setting in settings} == {"auto"}
    assert chosen(settings, lambda config: config.settings.recompute) == list(POLICIES)


def test_other_trainings_have_other_batches_or_cells(given):
    settings = other_trainings(given)
    assert chosen(settings, lambda config: config.batch_size) == [2, 8, 16, 4]
    cells = chosen(settings, lambda config: config.settings.model.fusion.cells_per_token)
    assert cells == [1, 1, 1, 2]


def test_the_advice_names_what_is_faster_or_keeps_the_setting(plans):
    less, given = plans
    advice = Advice(same=sorted(plans, key=lambda made: made.step_time), others=[])
    assert advice.best is given  # computing blocks again takes time, and both fit
    assert advice_lines(advice, given)[-1].startswith("Advice: keep the setting")
    assert "--set skysense.recompute=none" in advice_lines(advice, less)[-1]
    assert json.loads(json.dumps(advice.record()))["best"] == json.loads(json.dumps(given.record()))


def test_ranks_have_the_same_share_or_share_the_same_batch(given):
    batches = chosen(with_same_share(given), lambda config: config.batch_size)
    assert batches == [2 * 2**exponent for exponent in range(11)]
    spread = chosen(with_same_share(given), lambda config: config.settings.ep_size)
    assert spread == [1] + 10 * [2]
    assert [setting.world_size for setting in with_same_batch(given)] == [1, 2, 4]
    assert set(chosen(with_same_batch(given), lambda config: config.batch_size)) == {4}


@pytest.mark.long
def test_the_whole_advice(given):
    advice = advise(GIVEN, say=lambda line: None)
    assert advice.best is advice.same[0]  # a run of this size fits anyhow
    assert len(advice.same) == 3 * len(POLICIES)
    assert len(advice.others) == 4
    assert {made.recompute for made in advice.others} == {advice.best.recompute}
    assert {made.ep_size for made in advice.others} == {advice.best.ep_size}


@pytest.mark.long
def test_more_ranks_of_the_same_batch_hold_less_each(given):
    scaling = scale(given, say=lambda line: None)
    assert [made.world_size for made in scaling.same_batch] == [1, 2, 4]
    reserved = [made.memory.reserved for made in scaling.same_batch]
    assert reserved == sorted(reserved, reverse=True)
    assert [made.samples for made in scaling.same_share] == [2] * 11
    assert scaling.same_share[1].record() == given.record()
    rows = len(scaling.same_share) + len(scaling.same_batch)
    assert len(scaling_lines(scaling)) == 5 + rows
