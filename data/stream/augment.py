"""Random choices that change values, not geometry: colours of the high-resolution view, frames,
dates.

All of them follow from the generator that is handed in; see ``data.order.generator``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.stream import colour
from data.stream.settings import AugmentSettings
from data.tiles.tile import HR_PIXELS, day_index


def draw_frames(rng: np.random.Generator, available: np.ndarray, n: int) -> np.ndarray:
    """Choose ``n`` of the ``available`` frame indices without replacement, in time order; all of
    them if fewer."""
    available = np.asarray(available, dtype=np.int64)
    if len(available) <= n:
        return np.sort(available)
    return np.sort(rng.choice(available, n, replace=False))


def jitter_days(rng: np.random.Generator, dates: list[str], most: int) -> np.ndarray:
    """``day_index`` of ISO dates, each moved by up to ``most`` days either way: (T,) int64 in
    0..364."""
    moves = rng.integers(-most, most, size=len(dates), endpoint=True)
    return np.array([day_index(day, int(move)) for day, move in zip(dates, moves)], dtype=np.int64)


@dataclass(frozen=True)
class Colours:
    """What was drawn for one high-resolution view. A few numbers: they can be applied later, on
    another device."""

    jitter: tuple[tuple[str, float], ...] = ()  # changes in order, by name
    grey: bool = False
    blur: float | None = None  # sigma, pixels
    solarise: bool = False


def draw_colours(
    rng: np.random.Generator, settings: AugmentSettings, view: str, number: int
) -> Colours:
    """DINOv2's colour recipe for one high-resolution view (supplement, section C: colour, blur,
    solarisation on HR).

    view: "global" or "local"; ``number`` counts inside it. Brightness, contrast, saturation and hue
    are drawn and ordered as torchvision's ColorJitter does it."""
    jitter = ()
    if rng.random() < settings.jitter_probability:
        strength = settings.jitter
        values = [
            ("brightness", float(rng.uniform(max(0.0, 1 - strength[0]), 1 + strength[0]))),
            ("contrast", float(rng.uniform(max(0.0, 1 - strength[1]), 1 + strength[1]))),
            ("saturation", float(rng.uniform(max(0.0, 1 - strength[2]), 1 + strength[2]))),
            ("hue", float(rng.uniform(-strength[3], strength[3]))),
        ]
        jitter = tuple(values[i] for i in rng.permutation(4))
    grey = bool(rng.random() < settings.grey_probability)
    blurred = rng.random() < settings.blur_probability[2 if view == "local" else min(number, 1)]
    blur = float(rng.uniform(*settings.blur_sigma)) if blurred else None
    solarise = bool(
        view == "global" and number == 1 and rng.random() < settings.solarise_probability
    )
    return Colours(jitter, grey, blur, solarise)


def recolour(image: Tensor, mask: Tensor, colours: Colours, whole: bool | None = None) -> Tensor:
    """Apply what was drawn, on the image's device.

    image: 3 x 32n x 32n uint8; mask: n x n bool; whole: whether it is True everywhere, if the
    caller knows (to ask a mask on a GPU is to wait for it). Returns float32 in [0, 1]; invalid
    pixels hold no information of the image and influence no valid one."""
    x = image.float().div_(255)  # 3 H W, changed in place from here on
    valid = None
    if not (mask.all() if whole is None else whole):
        valid = (
            mask.repeat_interleave(HR_PIXELS, 0).repeat_interleave(HR_PIXELS, 1)[None].float()
        )  # 1 H W
        _fill(x, valid)
    for name, amount in colours.jitter:
        _CHANGES[name](x, amount)
    if colours.grey:
        x = colour.grey(x)  # 1 H W
    if colours.blur is not None:
        _blur(x, valid, colours.blur)
    if colours.solarise:
        colour.solarise(x)
    return x.expand(3, -1, -1)


_CHANGES = {
    "brightness": colour.brightness,
    "contrast": colour.contrast,
    "saturation": colour.saturation,
    "hue": colour.hue,
}


def _fill(x: Tensor, valid: Tensor) -> None:
    """Put the mean colour of the valid pixels into the invalid ones: neutral for the contrast's
    mean.

    x: C H W; valid: 1 H W, 1 or 0 (arithmetic is faster than a choice, and as exact)."""
    mean = x.mul_(valid).sum((1, 2)) / valid.sum().clamp(min=1)  # C
    x.addcmul_(1 - valid, mean[:, None, None])


def _blur(x: Tensor, valid: Tensor | None, sigma: float) -> None:
    """Gaussian blur; with a mask as normalised convolution, so that the fill stays out of the valid
    pixels."""
    if valid is None:
        colour.blur(x, sigma)
        return
    both = colour.blur(torch.cat([x * valid, valid]), sigma)  # C+1 H W
    torch.div(both[:-1], both[-1:].clamp(min=1e-6), out=x)
    _fill(x, valid)
