"""Which settings may change when a run continues."""

from dataclasses import asdict

import pytest

from engine.config.continued import FIXED, TAKEN, changes, refusal, rule
from engine.config.deepspeed_keys import ACCEPTED
from engine.config.flat import flat
from engine.config.load import load
from engine.config.settings import Settings
from tests.paths import ROOT, SHIPPED

DEMO = ROOT / "ds_configs/demo_one_process.json"
DERIVED = {"train_micro_batch_size_per_gpu", "gradient_accumulation_steps"}


def complete(*overrides: str) -> dict:
    """The demo's complete configuration with some overrides."""
    return load(DEMO, overrides).complete()


def refused(*overrides: str) -> str | None:
    """The line on a run of the demo that continues with these overrides."""
    return refusal(changes(complete(), complete(*overrides)))


def test_there_is_a_rule_for_every_setting():
    places = set(flat({"skysense": asdict(Settings())}))
    places |= ACCEPTED.keys() - DERIVED - {"optimizer"}
    places |= {f"optimizer.{key}" for key in ACCEPTED["optimizer"]}
    for config in SHIPPED:
        places |= flat(load(config).complete()).keys()
    assert len(places) > 150
    for place in places:
        rule(place)  # KeyError without one


def test_every_rule_is_about_a_setting_that_exists():
    places = set(flat({"skysense": asdict(Settings()), **ACCEPTED}))
    for name in (*FIXED, *TAKEN):
        assert any(place == name or place.startswith(f"{name}.") for place in places), name


def test_a_place_without_a_rule_is_a_fault():
    with pytest.raises(KeyError, match="skysense.new"):
        rule("skysense.new")


def test_the_share_of_a_rank_is_no_setting():
    one = load(DEMO, ["skysense.ep_size=1"], world_size=1).complete()
    two = load(DEMO, ["skysense.ep_size=1"], world_size=2).complete()
    assert one == two == complete("skysense.ep_size=1")


@pytest.mark.parametrize(
    "override",
    [
        "gradient_clipping=0.5",
        "optimizer.params.betas=[0.8,0.9]",
        "optimizer.params.eps=1e-6",
        "train_batch_size=8",
        "skysense.schedule.steps=100",
        "skysense.model.drop_path=0.1",
        "skysense.model.moe.capacity_factor=1.0",
        "skysense.checkpoint.every=3",
    ],
)
def test_what_the_next_step_follows_may_change(override):
    place, _, value = override.partition("=")
    [(changed, change)] = changes(complete(), complete(override)).items()
    assert changed == place
    assert change.now.replace(" ", "") in (value, str(float(value)) if "[" not in value else "")
    assert refused(override) is None


@pytest.mark.parametrize(
    "override, old, new",
    [
        ("skysense.model.fusion.heads=2", "4", "2"),
        ("skysense.model.window=4", "8", "4"),
        ("skysense.model.moe.fixed_gate=true", "false", "true"),
        ("skysense.seed=1", "0", "1"),
        ("skysense.loss.centring=mean", '"sinkhorn"', '"mean"'),
        ("skysense.init.path=runs/x", "null", '"runs/x"'),
    ],
)
def test_what_changes_the_function_or_does_nothing_is_refused_by_name(override, old, new):
    place = override.partition("=")[0]
    expected = f"{place}: expected {old} as in the checkpoint, found {new}: {rule(place)}; set it"
    assert refused(override).startswith(expected)


def test_a_part_of_the_model_that_goes_is_refused():
    assert refused("skysense.model.context=null").startswith("skysense.model.context")


def test_further_refused_settings_are_named_and_taken_ones_are_not():
    line = refused("skysense.model.queries=2", "skysense.log_every=2", "skysense.seed=1")
    assert line.startswith("skysense.seed: expected 0")
    assert "; also changed: skysense.model.queries; set it back" in line
