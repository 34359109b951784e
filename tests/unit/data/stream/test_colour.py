"""Colour changes against torchvision's."""

import colorsys
from itertools import product

import pytest
import torch
from torchvision.transforms.v2 import functional as F

from data.stream import colour

FACTORS = (0.0, 0.6, 1.0, 1.4, 2.0)
TURNS = (-0.5, -0.4, -1 / 3, -1 / 6, -0.1, -0.01, 0.0, 0.03, 0.1, 1 / 6, 0.25, 1 / 3, 0.5)
close = {"atol": 1e-5, "rtol": 0}


@pytest.fixture
def image():
    """3 300 160, more than one block: random pixels, below them all colours of five levels (black,
    white, greys, saturated ones, ties of two channels), greys, pixels that are grey but for
    rounding, and nearly grey ones."""
    x = torch.rand(3, 300, 160, generator=torch.Generator().manual_seed(0))
    levels = torch.tensor(list(product((0.0, 1e-3, 0.5, 0.8, 1.0), repeat=3))).T  # 3 125
    x[:, 200, :125] = levels
    x[:, 201:220] = x[:1, 201:220]
    x[:, 220:230] = x[:1, 220:230] + 1e-7 * x[:, 230:240]
    x[:, 240:250] = x[:1, 240:250] + 1e-3 * x[:, 230:240]
    return x.clamp(max=1)


@pytest.mark.parametrize("factor", FACTORS)
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_factors_are_torchvisions(image, name, factor):
    expected = getattr(F, f"adjust_{name}")(image, factor)
    torch.testing.assert_close(getattr(colour, name)(image, factor), expected, **close)


@pytest.mark.parametrize("turns", TURNS)
def test_hue_is_torchvisions(image, turns):
    torch.testing.assert_close(
        colour.hue(image.clone(), turns), F.adjust_hue(image, turns), **close
    )


@pytest.mark.parametrize("turns", TURNS)
def test_hue_is_that_of_the_standard_library_where_channels_tie(image, turns):
    levels = image[:, 200:201, :125].clone()
    expected = []
    for pixel in levels[:, 0].double().T.tolist():
        h, s, v = colorsys.rgb_to_hsv(*pixel)
        expected.append(colorsys.hsv_to_rgb((h + turns) % 1, s, v))
    torch.testing.assert_close(colour.hue(levels, turns)[:, 0].T, torch.tensor(expected), **close)


@pytest.mark.parametrize("turns", TURNS)
def test_hue_keeps_extremes_and_greys(image, turns):
    x = colour.hue(image.clone(), turns)
    torch.testing.assert_close(x.amax(0), image.amax(0), **close)
    assert torch.equal(x.amin(0), image.amin(0))
    assert torch.equal(x[:, 201:220], image[:, 201:220])


def test_grey_is_torchvisions(image):
    torch.testing.assert_close(
        colour.grey(image).expand(3, -1, -1), F.rgb_to_grayscale(image, 3), atol=1e-6, rtol=0
    )


def test_solarise_is_torchvisions_to_the_bit(image):
    threshold = torch.tensor(colour.SOLARISE_THRESHOLD)
    image[0, 0, :3] = torch.stack(
        [threshold.nextafter(torch.tensor(0.0)), threshold, threshold.nextafter(torch.tensor(1.0))]
    )
    assert torch.equal(colour.solarise(image.clone()), F.solarize(image, colour.SOLARISE_THRESHOLD))


@pytest.mark.parametrize("sigma", [0.01, 0.1, 0.17, 0.3, 0.5, 0.66, 0.7, 1.3, 2.0, 50.0])
@pytest.mark.parametrize("planes", [1, 3])
def test_blur_is_torchvisions_square_kernel(image, planes, sigma):
    x = image[:planes]
    expected = F.gaussian_blur(x.double(), [9, 9], [sigma]).float()
    torch.testing.assert_close(colour.blur(x.clone(), sigma), expected, atol=1e-6, rtol=0)


CHANGES = {"brightness": 1.3, "contrast": 0.7, "saturation": 1.2, "hue": -0.4, "blur": 1.5}


@pytest.mark.parametrize("name", [*CHANGES, "solarise"])
@pytest.mark.parametrize("pixels", [1, 7 * 160, 10**9])
def test_blocks_change_nothing(image, name, pixels, monkeypatch):
    """Blocks of one row, of seven (300 is no multiple) and of the whole image."""
    amount = [CHANGES[name]] if name in CHANGES else []
    expected = getattr(colour, name)(image.clone(), *amount)
    monkeypatch.setattr(colour, "BLOCK", pixels)
    assert torch.equal(getattr(colour, name)(image.clone(), *amount), expected)


def test_no_change_reads_a_value_on_the_host():
    """A tensor without storage fails where a value is read, which would wait for a GPU."""
    x = torch.empty(3, 64, 64, device="meta")
    for name, amount in CHANGES.items():
        assert getattr(colour, name)(x, amount) is x
    assert colour.solarise(x) is x and colour.grey(x).shape == (1, 64, 64)
    with pytest.raises(RuntimeError):
        float(x.mean())
