"""Views that a model cannot take: one line says what was expected, what was found, what to do."""

import pytest
import torch

from models.errors import ModelError
from models.features import FUSED, Features, Views, pooled
from models.initialise import initialise
from models.skysense import SkySense
from tests.unit.models.test_recompute import SIDES, SMALL, views

MODEL = SkySense(SMALL)
initialise(MODEL, 0)


def changed(field: str, name: str, values: torch.Tensor) -> dict[str, Views]:
    """Valid views of one size, with one tensor replaced."""
    inputs = views(SMALL, SIDES, 2)
    getattr(inputs, field)[name] = values
    return {"global": inputs}


def without(field: str, name: str) -> dict[str, Views]:
    """Valid views of one size, with one tensor left out."""
    inputs = views(SMALL, SIDES, 2)
    del getattr(inputs, field)[name]
    return {"global": inputs}


def refused(inputs, *words: str) -> None:
    """The model refuses ``inputs`` with one line that holds all ``words``."""
    with pytest.raises(ModelError) as caught:
        MODEL(inputs)
    message = str(caught.value)
    assert "\n" not in message and ": expected " in message and "found " in message
    for word in words:
        assert word in message, message


def test_a_tensor_instead_of_a_dictionary():
    refused(torch.zeros(1, 3, 8, 8), "a tensor of the shape (1, 3, 8, 8)", "call model({")


def test_images_instead_of_views():
    refused({"global": {"hr": torch.zeros(1, 2, 8, 8)}}, "a dictionary of dict", "call model({")
    refused(None, "an object of the type NoneType")


def test_nothing_at_all():
    refused({}, "found an empty dictionary")
    inputs = views(SMALL, SIDES, 2)
    inputs.images = {}
    refused({"global": inputs}, "views 'global'", "some of hr, ms, found none", "add them")


def test_an_unknown_sensor():
    inputs = changed("images", "uav", torch.zeros(1, 2, 1, 3, 8, 8))
    refused(inputs, "views 'global'", "among hr, ms, found 'uav'", "rename it")


def test_a_missing_batch_axis():
    inputs = changed("images", "ms", torch.zeros(2, 2, 3, 8, 8))
    refused(inputs, "'ms'", "axes B V T C H W", "(2, 2, 3, 8, 8)", "unsqueeze")


def test_stored_integers():
    inputs = changed("images", "ms", torch.zeros(1, 2, 2, 3, 8, 8, dtype=torch.uint8))
    refused(
        inputs, "'ms'", "expected normalised images", "found torch.uint8", "modalities.normalise"
    )


def test_the_wrong_number_of_bands():
    inputs = changed("images", "ms", torch.zeros(1, 2, 2, 10, 8, 8))
    refused(inputs, "'ms'", "expected 3 bands", "found 10", "select the bands")


def test_sides_that_are_no_multiples_of_the_patch():
    inputs = changed("images", "ms", torch.zeros(1, 2, 2, 3, 7, 8))
    refused(inputs, "multiples of 2 pixels", "found 7 x 8", "crop or pad")


@pytest.mark.parametrize("shape", [(1, 2, 2, 8), (1, 2, 1, 8, 8), (1, 2, 2, 3, 8), (1, 2, 2, 0, 8)])
def test_a_mask_that_does_not_fit_the_images(shape):
    inputs = changed("valid", "ms", torch.ones(shape, dtype=torch.bool))
    refused(inputs, "'ms'", "axes B V T n n", f"found the shape {shape}", "one flag")


def test_what_is_missing():
    refused(without("valid", "ms"), "'ms'", "expected valid", "found none")
    refused(without("days", "ms"), "'ms'", "expected days of the shape (1, 2, 2), found none")


def test_days_and_regions_of_other_samples():
    inputs = changed("days", "ms", torch.zeros(1, 2, 5, dtype=torch.int64))
    refused(inputs, "expected days of the shape (1, 2, 2), found the shape (1, 2, 5)")
    inputs = views(SMALL, SIDES, 2)
    inputs.region = torch.zeros(3, dtype=torch.int64)
    refused(
        {"global": inputs}, "expected region of the shape (1,), found (3,)", "-1 for no context"
    )


def test_a_model_without_fusion_needs_no_days():
    model = SkySense(SMALL.variant(fusion=None, context=None))
    initialise(model, 0)
    features, _ = model(without("days", "ms"))
    assert set(features["global"].maps) == {"hr", "ms"}


def test_pooling_counts_valid_cells_of_the_first_view():
    maps = torch.tensor([[[[[[1.0], [3.0]]]], [[[[9.0], [9.0]]]]]])  # B V T h w D
    valid = torch.tensor([[[[[True, True]]], [[[True, True]]]]])  # B V T h w
    features = Features({"ms": maps, FUSED: maps}, {"ms": valid, FUSED: ~valid})
    mean, present = pooled(features, "ms")
    assert mean.tolist() == [[2.0]] and present.tolist() == [True]
    mean, present = pooled(features, FUSED)
    assert mean.tolist() == [[0.0]] and present.tolist() == [False]
