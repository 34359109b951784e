"""Resizing against Pillow and torch."""

import numpy as np
import pytest
import torch
from PIL import Image

from data.stream.resize import masked_bicubic


@pytest.mark.parametrize("h,w,side", [(20, 27, 8), (4, 3, 8), (8, 8, 8), (1, 1, 4)])
def test_resizing_equals_pillow(h, w, side):
    x = np.random.default_rng(1).normal(size=(2, 3, h, w)).astype(np.float32)
    mask = torch.ones(2, h, w, dtype=torch.bool)
    out, good = masked_bicubic(torch.from_numpy(x), mask, side)
    for t in range(2):
        for c in range(3):
            expected = Image.fromarray(x[t, c]).resize((side, side), Image.BICUBIC)
            np.testing.assert_allclose(out[t, c], np.asarray(expected), atol=2e-5)
    assert good.all()


def by_pillow(image):
    """An image resized to 8 x 8 pixels."""
    resized = Image.fromarray(image.astype(np.float32)).resize((8, 8), Image.BICUBIC)
    return np.asarray(resized)


def test_masked_resizing_is_normalised_convolution():
    rng = np.random.default_rng(2)
    x = rng.normal(size=(21, 17)).astype(np.float32)
    mask = rng.random((21, 17)) > 0.3
    out, good = masked_bicubic(
        torch.from_numpy(x * mask)[None, None], torch.from_numpy(mask)[None], 8
    )
    top = by_pillow(x * mask)
    bottom = by_pillow(mask)
    expected = bottom >= 0.5
    assert 0 < expected.sum() < 64 and (good[0].numpy() == expected).all()
    np.testing.assert_allclose(out[0, 0].numpy()[expected], (top / bottom)[expected], atol=1e-4)
    assert (out[0, 0].numpy()[~expected] == 0).all()


@pytest.mark.parametrize("shape,side", [((21, 17), 8), ((64, 3), 16), ((5, 128), 12), ((1, 1), 4)])
def test_small_images_are_resized_as_by_torch(shape, side):
    x = torch.rand(2, 3, *shape)
    out, _ = masked_bicubic(x, torch.ones(2, *shape, dtype=torch.bool), side)
    expected = torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True)
    torch.testing.assert_close(out, expected, atol=2e-6, rtol=0)
