"""Random choices that change values, not geometry: colours of the high-resolution view, frames, dates.

All of them follow from the generator that is handed in; see ``data.order.generator``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from data.settings import AugmentSettings
from data.tile import HR_PIXELS, day_index

BLUR_KERNEL = 9  # pixels, DINOv2
SOLARISE_THRESHOLD = 128 / 255


def draw_frames(rng: np.random.Generator, available: np.ndarray, n: int) -> np.ndarray:
    """Choose ``n`` of the ``available`` frame indices without replacement, in time order; all of them if fewer."""
    available = np.asarray(available, dtype=np.int64)
    if len(available) <= n:
        return np.sort(available)
    return np.sort(rng.choice(available, n, replace=False))


def jitter_days(rng: np.random.Generator, dates: list[str], most: int) -> np.ndarray:
    """``day_index`` of ISO dates, each moved by up to ``most`` days either way: (T,) int64 in 0..364."""
    moves = rng.integers(-most, most, size=len(dates), endpoint=True)
    return np.array([day_index(day, int(move)) for day, move in zip(dates, moves)], dtype=np.int64)


@dataclass(frozen=True)
class Colours:
    """What was drawn for one high-resolution view. A few numbers: they can be applied later, on another device."""

    jitter: tuple[tuple[str, float], ...] = ()  # changes in order, by name
    grey: bool = False
    blur: float | None = None  # sigma, pixels
    solarise: bool = False


def draw_colours(rng: np.random.Generator, settings: AugmentSettings, view: str, number: int) -> Colours:
    """DINOv2's colour recipe for one high-resolution view (supplement, section C: colour, blur, solarisation on HR).

    view: "global" or "local"; ``number`` counts inside it. Brightness, contrast, saturation and hue are drawn and
    ordered as torchvision's ColorJitter does it."""
    jitter = ()
    if rng.random() < settings.jitter_probability:
        strength = settings.jitter
        values = [("brightness", float(rng.uniform(max(0.0, 1 - strength[0]), 1 + strength[0]))),
                  ("contrast", float(rng.uniform(max(0.0, 1 - strength[1]), 1 + strength[1]))),
                  ("saturation", float(rng.uniform(max(0.0, 1 - strength[2]), 1 + strength[2]))),
                  ("hue", float(rng.uniform(-strength[3], strength[3])))]
        jitter = tuple(values[i] for i in rng.permutation(4))
    grey = bool(rng.random() < settings.grey_probability)
    blurred = rng.random() < settings.blur_probability[2 if view == "local" else min(number, 1)]
    blur = float(rng.uniform(*settings.blur_sigma)) if blurred else None
    solarise = bool(view == "global" and number == 1 and rng.random() < settings.solarise_probability)
    return Colours(jitter, grey, blur, solarise)


def recolour(image: Tensor, mask: Tensor, colours: Colours) -> Tensor:
    """Apply what was drawn, on the image's device.

    image: 3 x 32n x 32n uint8; mask: n x n bool. Returns float32 in [0, 1]; invalid pixels hold no information of the
    image and influence no valid one."""
    x = image.float().div_(255)  # 3 H W
    pixels = None
    if not mask.all():
        pixels = mask.repeat_interleave(HR_PIXELS, 0).repeat_interleave(HR_PIXELS, 1)  # H W
        x = _fill(x, pixels)
    for name, amount in colours.jitter:
        x = _CHANGES[name](x, amount)
    if colours.grey:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    if colours.blur is not None:
        x = _blur(x, pixels, colours.blur)
    return F.solarize(x, SOLARISE_THRESHOLD) if colours.solarise else x


_CHANGES = {"brightness": F.adjust_brightness, "contrast": F.adjust_contrast, "saturation": F.adjust_saturation,
            "hue": F.adjust_hue}


def _fill(x: Tensor, pixels: Tensor) -> Tensor:
    """Put the mean colour of the valid pixels into the invalid ones: neutral for the contrast's mean."""
    weight = pixels.sum().clamp(min=1)
    mean = x.where(pixels, x.new_zeros(())).sum((1, 2)) / weight  # 3
    return x.where(pixels, mean[:, None, None])


def _blur(x: Tensor, pixels: Tensor | None, sigma: float) -> Tensor:
    """Gaussian blur; with a mask as normalised convolution, so that the fill stays out of the valid pixels."""
    if pixels is None:
        return _gaussian(x, sigma)
    both = _gaussian(torch.cat([x * pixels, pixels[None].to(x.dtype)]), sigma)  # 4 H W
    return _fill(both[:3] / both[3:].clamp(min=1e-6), pixels)


def _gaussian(x: Tensor, sigma: float) -> Tensor:
    """Rows, then columns: the same as the square kernel, and faster."""
    return F.gaussian_blur(F.gaussian_blur(x, [BLUR_KERNEL, 1], [sigma]), [1, BLUR_KERNEL], [sigma])
