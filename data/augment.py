"""Random choices that change values, not geometry: colours of the high-resolution view, frames, dates.

All of them follow from the generator that is handed in; see ``data.order.generator``.
"""

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


def photometric(rng: np.random.Generator, image: Tensor, mask: Tensor, settings: AugmentSettings,
                view: str, number: int) -> Tensor:
    """DINOv2's colour recipe on one high-resolution view (supplement, section C: colour, blur, solarisation on HR).

    image: 3 x 32n x 32n uint8; mask: n x n bool; view: "global" or "local", ``number`` counts inside it.
    Returns float32 in [0, 1]; invalid pixels hold no information of the image and influence no valid one."""
    x = image.float().div_(255)  # 3 H W
    pixels = None
    if not mask.all():
        pixels = mask.repeat_interleave(HR_PIXELS, 0).repeat_interleave(HR_PIXELS, 1)  # H W
        x = _fill(x, pixels)
    if rng.random() < settings.jitter_probability:
        x = _colour_jitter(rng, x, settings.jitter)
    if rng.random() < settings.grey_probability:
        x = F.rgb_to_grayscale(x, num_output_channels=3)
    if rng.random() < settings.blur_probability[2 if view == "local" else min(number, 1)]:
        x = _blur(x, pixels, float(rng.uniform(*settings.blur_sigma)))
    if view == "global" and number == 1 and rng.random() < settings.solarise_probability:
        x = F.solarize(x, SOLARISE_THRESHOLD)
    return x


def _colour_jitter(rng: np.random.Generator, x: Tensor, strength: tuple[float, float, float, float]) -> Tensor:
    """Brightness, contrast, saturation and hue in random order, as torchvision's ColorJitter draws them."""
    brightness, contrast, saturation = (float(rng.uniform(max(0.0, 1 - s), 1 + s)) for s in strength[:3])
    hue = float(rng.uniform(-strength[3], strength[3]))
    changes = (lambda y: F.adjust_brightness(y, brightness), lambda y: F.adjust_contrast(y, contrast),
               lambda y: F.adjust_saturation(y, saturation), lambda y: F.adjust_hue(y, hue))
    for i in rng.permutation(4):
        x = changes[i](x)
    return x


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
