"""A wrong choice of a trained model is refused in one line, whoever makes it."""

import pytest

from models.errors import ModelError
from models.pretrained.choice import Choice, Sensor
from tests.unit.models.pretrained.test_adapt import SPEC


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"modalities": ("hr", "uav")},
            "expected some of the trained ones, hr, ms, sar, found uav; give a new sensor",
        ),
        ({"modalities": ()}, "expected some of the trained ones, hr, ms, sar, found none"),
        ({"modalities": "hr"}, r"found one string; write \('hr',\) for one modality"),
        ({"modalities": {"uav": "hr"}}, "modalities uav: expected a Sensor, found 'hr'"),
        ({"fuse": False}, "expected choices among modalities, fusion, .*, found fuse"),
        ({"fusion": "no"}, "fusion: expected True or False, found 'no'"),
        ({"prompts": 0}, "prompts: expected True or False, found 0"),
        (
            {"merge": {"uav": (True, True, True)}},
            "merge: expected some of the modalities hr, ms, sar, found uav",
        ),
        ({"merge": {"hr": (True, True)}}, r"merge hr: .* stages 1, 2 and 3, found \(True, True\)"),
        ({"merge": {"hr": True}}, "merge hr: .* found True"),
        ({"merge": (True, True, True)}, "merge: expected flags by modality"),
        ({"expert": 4}, "expert: expected 0 to 3, or -1 for a random one, found 4"),
    ],
)
def test_a_wrong_choice_is_refused_in_one_line(options, message):
    with pytest.raises(ModelError, match=message) as error:
        Choice.from_options(options).specification(SPEC)
    assert "\n" not in str(error.value)


def test_an_expert_of_a_model_without_experts_is_refused():
    with pytest.raises(ModelError, match="expected a trained model with experts, found none"):
        Choice(expert=0).specification(SPEC.variant(moe=None))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"bands": "RGB"}, "bands of a sensor like hr: .* found 'RGB'"),
        ({"bands": ()}, r"bands of a sensor like hr: .* found \(\); leave bands out"),
    ],
)
def test_a_wrong_sensor_is_refused_in_one_line(options, message):
    with pytest.raises(ModelError, match=message) as error:
        Sensor("hr", **options)
    assert "\n" not in str(error.value)
