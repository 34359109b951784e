"""Colours."""

import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from data.seeded import generator
from data.stream.augment import Colours, draw_colours, recolour
from data.stream.settings import GLOBAL, LOCAL, AugmentSettings
from data.stream.views import by_pixel

NOTHING = AugmentSettings(
    jitter_probability=0, grey_probability=0, blur_probability=(0, 0, 0), solarise_probability=0
)
MASK = torch.ones(64, 64, dtype=torch.bool)


def image(seed=0):
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (3, 64, 64), dtype=np.uint8)
    )


def changed(settings, size, number, *, seed=0, stored=None, mask=MASK):
    """A view after the colours that its seed draws; without an image, that of ``image``."""
    if stored is None:
        stored = image()
    return recolour(stored, mask, draw_colours(generator(seed), settings, size=size, number=number))


def test_no_change_gives_the_image():
    assert torch.equal(changed(NOTHING, GLOBAL, 1), image().float() / 255)


def test_same_generator_same_colours_and_values_stay_in_range():
    settings = AugmentSettings()
    means = set()
    for seed in range(20):
        x = changed(settings, GLOBAL, 1, seed=seed)
        assert torch.equal(x, changed(settings, GLOBAL, 1, seed=seed))
        assert 0 <= float(x.min()) <= float(x.max()) <= 1 + 1e-6
        means.add(float(x.mean()))
    assert len(means) == 20


def test_grey_uses_the_luma_weights():
    x = changed(replace(NOTHING, grey_probability=1), LOCAL, 0)
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64)
    expected = torch.einsum("c,chw->hw", weights, image().double() / 255)
    torch.testing.assert_close(x, expected.float().expand(3, -1, -1), atol=1e-3, rtol=0)


def test_solarisation_inverts_bright_pixels_of_the_second_global_view_only():
    settings = replace(NOTHING, solarise_probability=1)
    x = image().float() / 255
    second = changed(settings, GLOBAL, 1)
    assert torch.allclose(second, x.where(image() < 128, 1 - x))
    for size, number in ((GLOBAL, 0), (LOCAL, 1), (GLOBAL, 2)):
        assert torch.equal(changed(settings, size, number), x)


@pytest.mark.parametrize(
    "size,number,which", [(GLOBAL, 0, 0), (GLOBAL, 1, 1), (GLOBAL, 2, 1), (LOCAL, 1, 2)]
)
def test_blur_is_gaussian_and_has_a_probability_for_each_kind_of_view(size, number, which):
    on = [0.0, 0.0, 0.0]
    on[which] = 1.0
    settings = replace(NOTHING, blur_probability=tuple(on), blur_sigma=(1.3, 1.3))
    spot = torch.zeros(3, 64, 64, dtype=torch.uint8)
    spot[:, 30, 20] = 255
    x = changed(settings, size, number, stored=spot)
    kernel = np.exp(-0.5 * (np.arange(-4, 5) / 1.3) ** 2)
    kernel = np.outer(kernel, kernel) / kernel.sum() ** 2
    np.testing.assert_allclose(x[1, 26:35, 16:25], kernel, atol=1e-6)
    assert abs(float(x[1].sum()) - 1) < 1e-5
    off = replace(settings, blur_probability=tuple(1 - p for p in on))
    assert torch.equal(changed(off, size, number, stored=spot), spot / 255)


def test_jitter_has_its_probability():
    settings = replace(NOTHING, jitter_probability=0.8)
    small = image()[:, :32, :32]
    count = 0
    for seed in range(400):
        x = changed(settings, LOCAL, 0, seed=seed, stored=small, mask=MASK[:32, :32])
        count += not torch.equal(x, small / 255)
    assert 290 <= count <= 350  # 320 +- 3.75 deviations


def test_brightness_stays_in_its_range():
    settings = replace(NOTHING, jitter_probability=1, jitter=(0.4, 0.0, 0.0, 0.0))
    grey = torch.full((3, 32, 32), 100, dtype=torch.uint8)
    factors = []
    for seed in range(200):
        x = changed(settings, LOCAL, 0, seed=seed, stored=grey, mask=MASK[:32, :32])
        factors.append(float(x.mean()) * 2.55)
    assert 0.6 <= min(factors) < 0.63 and 1.37 < max(factors) <= 1.4


def by_torchvision(x, colours):
    """What ``recolour`` is to give where all is valid, before solarisation."""
    for name, amount in colours.jitter:
        x = getattr(F, f"adjust_{name}")(x, amount)
    if colours.grey:
        x = F.rgb_to_grayscale(x, 3)
    if colours.blur is not None:
        x = F.gaussian_blur(x, [9, 9], [colours.blur])
    return x


@pytest.mark.parametrize("size,number", [(GLOBAL, 0), (GLOBAL, 1), (LOCAL, 0)])
def test_all_changes_together_are_torchvisions_in_the_drawn_order(size, number):
    settings = replace(
        AugmentSettings(),
        grey_probability=0.3,
        blur_probability=(1.0, 0.5, 0.5),
        solarise_probability=0.5,
    )
    for seed in range(60):
        colours = draw_colours(generator(seed), settings, size=size, number=number)
        stored = image(seed)
        x = recolour(stored, MASK, colours)
        expected = by_torchvision(stored.float() / 255, colours)
        assert torch.equal(stored, image(seed))
        if colours.solarise:  # a jump: rounding decides on which side a pixel at the threshold lies
            sure = (expected - 128 / 255).abs() > 1e-5
            x = x[sure]
            expected = F.solarize(expected, 128 / 255)[sure]
        torch.testing.assert_close(x, expected, atol=1e-5, rtol=0)


def test_all_changes_beat_torchvision_in_time():
    """Time of one core for the views of a sample, in turns; prints what docs/performance.md has."""
    views = [(GLOBAL, number, 512) for number in range(2)]
    views += [(LOCAL, number, 128) for number in range(6)]
    images = {side: torch.zeros(3, side, side, dtype=torch.uint8) for side in (512, 128)}
    for stored in images.values():
        stored.random_()
    mask = torch.ones(512, 512, dtype=torch.bool)
    drawn = []
    for seed in range(6):
        for size, number, side in views:
            rng = generator(seed, size, number)
            colours = draw_colours(rng, AugmentSettings(), size=size, number=number)
            drawn.append((images[side], mask[:side, :side], colours))
    seconds = {"ours": [], "torchvision": []}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for _ in range(3):
            start = time.process_time()
            for stored, valid, colours in drawn:
                recolour(stored, valid, colours)
            middle = time.process_time()
            for stored, _, colours in drawn:
                x = by_torchvision(stored.float() / 255, colours)
                if colours.solarise:
                    F.solarize(x, 128 / 255)
            seconds["ours"].append(middle - start)
            seconds["torchvision"].append(time.process_time() - middle)
    finally:
        torch.set_num_threads(threads)
    ours = min(seconds["ours"]) / 6
    torchvision = min(seconds["torchvision"]) / 6
    print(f"colours: {1e3 * ours:.1f} ms a sample, torchvision {1e3 * torchvision:.1f} ms")
    assert ours < torchvision / 2


def test_beside_invalid_cells_the_blur_is_a_mean_of_valid_pixels():
    mask = by_pixel(torch.tensor([[True, False], [True, True]]), 32)
    valid = mask[None].double()
    x = recolour(image(), mask, Colours(blur=1.5))
    weighted = F.gaussian_blur(image().double() / 255 * valid, [9, 9], [1.5])
    weight = F.gaussian_blur(valid, [9, 9], [1.5])
    expected = weighted / weight  # 3 H W, nan deep inside the invalid cell
    mean = expected.where(valid > 0, 0).sum((1, 2), keepdim=True) / valid.sum()
    torch.testing.assert_close(x, expected.where(valid > 0, mean).float(), atol=1e-5, rtol=0)


def test_without_a_valid_cell_nothing_of_the_image_is_left():
    for seed in range(10):
        colours = draw_colours(generator(seed), AugmentSettings(), size=GLOBAL, number=seed % 2)
        one = recolour(image(1), torch.zeros_like(MASK), colours)
        other = recolour(image(2), torch.zeros_like(MASK), colours)
        assert torch.equal(one, other) and one.isfinite().all()


def test_invalid_cells_change_no_valid_pixel():
    pixels = by_pixel(torch.tensor([[True, False], [True, True]]), 32)
    settings = AugmentSettings(
        jitter_probability=1, blur_probability=(1, 1, 1), blur_sigma=(2.0, 2.0)
    )
    for seed in range(10):
        black = image().masked_fill(~pixels, 0)
        white = image().masked_fill(~pixels, 255)
        one = changed(settings, GLOBAL, 1, seed=seed, stored=black, mask=pixels)
        other = changed(settings, GLOBAL, 1, seed=seed, stored=white, mask=pixels)
        assert torch.equal(one[:, pixels], other[:, pixels]) and one.isfinite().all()


def test_a_constant_image_stays_constant_beside_invalid_cells():
    pixels = by_pixel(torch.tensor([[True, False], [True, True]]), 32)
    flat = torch.full((3, 64, 64), 90, dtype=torch.uint8).masked_fill(~pixels, 0)
    settings = replace(
        NOTHING, blur_probability=(1, 1, 1), jitter_probability=1, jitter=(0.0, 0.4, 0.0, 0.0)
    )
    x = changed(settings, GLOBAL, 0, seed=1, stored=flat, mask=pixels)
    torch.testing.assert_close(
        x[:, pixels], torch.full((3, int(pixels.sum())), 90 / 255), atol=1e-5, rtol=0
    )
