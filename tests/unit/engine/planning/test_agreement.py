"""A plan beside a whole step of torch's own operators for CUDA, on a card that does nothing."""

import pytest

from engine.planning.cards import card_of
from engine.planning.making import plan
from engine.planning.plan import Setting
from models.recompute import POLICIES
from tests.null_card.run import compile_card, step
from tests.paths import CONFIGS

OF_MEMORY = 0.05
OF_BYTES = 0.01
RANKS = {
    "paper_128gpu": 128,
    "eight_gpus": 8,
    "one_gpu": 1,
    "base_one_gpu": 1,
    "small_one_gpu": 1,
}


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    """The null card's library."""
    return compile_card(tmp_path_factory.mktemp("null_card"))


def check(card, *, name, kernels, policy):
    """Hold a plan's reserved memory and exchanged bytes against the null card's."""
    config = CONFIGS / f"{name}.json"
    overrides = [f"skysense.recompute={policy}"]
    world = RANKS[name]
    real = step(card, config, world=world, kernels=kernels, overrides=overrides)
    setting = Setting(path=config, world_size=world, card=card_of("h100"), kernels=kernels)
    planned = plan(setting.changed(*overrides))
    assert planned.memory.reserved == pytest.approx(real["reserved"], rel=OF_MEMORY)
    exchanged = sum(exchange.size for exchange in planned.traffic)
    assert exchanged == pytest.approx(sum(real["sent"].values()), rel=OF_BYTES)


def test_a_plan_agrees_with_a_step_on_the_null_card(card):
    check(card, name="small_one_gpu", kernels="auto", policy="blocks")


@pytest.mark.long
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kernels", ["off", "auto"])
@pytest.mark.parametrize("name", RANKS)
def test_plans_of_presets_agree(card, name, kernels, policy):
    check(card, name=name, kernels=kernels, policy=policy)
