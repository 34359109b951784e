"""Random changes of colour of the high-resolution image, and of the levels of the other sensors.

All of them follow from the generator that is handed in; see ``data.seeded.generator``.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from data.stream import colour
from data.stream.settings import GLOBAL, LOCAL, AugmentSettings
from data.tiles.modalities import Modality


@dataclass(frozen=True)
class Colours:
    """The drawn changes of one high-resolution view.

    They are a few numbers, so they can be applied later, on another device.
    """

    jitter: tuple[tuple[str, float], ...] = ()  # (name, amount) in the order of application
    grey: bool = False
    blur: float | None = None  # sigma, pixels
    solarise: bool = False


def draw_colours(
    rng: np.random.Generator, settings: AugmentSettings, *, size: str, number: int
) -> Colours:
    """Draw DINOv2's colour recipe for one high-resolution view.

    Supplement, section C: colour, blur and solarisation on HR. Brightness, contrast, saturation and
    hue are drawn and ordered as torchvision's ColorJitter does it.

    Args:
        rng: of this view alone.
        settings: strengths and probabilities.
        size: ``GLOBAL`` or ``LOCAL``.
        number: of the view among those of its size.
    """
    jitter: tuple[tuple[str, float], ...] = ()
    if rng.random() < settings.jitter_probability:
        jitter = _draw_jitter(rng, settings)
    grey = bool(rng.random() < settings.grey_probability)
    blur = None
    if rng.random() < _blur_probability(settings, size, number):
        blur = float(rng.uniform(*settings.blur_sigma))
    solarise = False
    if size == GLOBAL and number == 1:
        solarise = bool(rng.random() < settings.solarise_probability)
    return Colours(jitter, grey, blur, solarise)


def _draw_jitter(
    rng: np.random.Generator, settings: AugmentSettings
) -> tuple[tuple[str, float], ...]:
    """Amounts of the four colour changes, in a random order."""
    amounts = []
    for name, strength in zip(("brightness", "contrast", "saturation"), settings.jitter):
        amounts.append((name, float(rng.uniform(max(0.0, 1 - strength), 1 + strength))))
    hue = settings.jitter[3]
    amounts.append(("hue", float(rng.uniform(-hue, hue))))
    return tuple(amounts[i] for i in rng.permutation(4))


def _blur_probability(settings: AugmentSettings, size: str, number: int) -> float:
    """How often a view is blurred."""
    first_global, other_global, local = settings.blur_probability
    if size == LOCAL:
        return local
    if number == 0:
        return first_global
    return other_global


@dataclass(frozen=True)
class Levels:
    """The drawn changes of the bands of one sensor in one view."""

    gain: np.ndarray  # C, around the sensor's mean
    offset: np.ndarray  # C, in the sensor's deviations


def draw_levels(rng: np.random.Generator, bands: int, strength: float) -> Levels:
    """Draw the levels of one view of a sensor, the same for all of its frames."""
    gain = 1 + rng.uniform(-strength, strength, bands)
    return Levels(gain, rng.uniform(-strength, strength, bands))


def shift_levels(image: Tensor, sensor: Modality, levels: Levels) -> Tensor:
    """Apply drawn levels to the frames T C H W of a sensor, divided by its scale."""
    mean = np.array(sensor.mean)  # C
    added = mean * (1 - levels.gain) + np.array(sensor.std) * levels.offset  # C
    return image * _by_band(levels.gain) + _by_band(added)


def _by_band(numbers: np.ndarray) -> Tensor:
    """A number for each band: C 1 1 float32."""
    return torch.from_numpy(numbers).float()[:, None, None]


def recolour(image: Tensor, mask: Tensor, colours: Colours, *, whole: bool | None = None) -> Tensor:
    """Apply the drawn changes, on the image's device.

    Our own operations, because they take a seventh of the time of torchvision's: see
    docs/performance.md.

    Args:
        image: 3 H W uint8.
        mask: H W bool, the valid pixels.
        colours: changes to apply.
        whole: whether the mask is True everywhere. None: look at the mask, which waits for a GPU.

    Returns:
        3 H W float32 in [0, 1]. Invalid pixels hold no information of the image and
        influence no valid one.
    """
    x = image.float().div_(255)  # 3 H W, changed in place from here on
    if whole is None:
        whole = bool(mask.all())
    valid = None
    if not whole:
        valid = mask[None].float()  # 1 H W
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
    """Fill the invalid pixels with the mean colour of the valid ones.

    So they do not move the mean that the contrast needs. Multiplying by the mask is faster than
    ``torch.where``, and as exact.

    Args:
        x: C H W, changed in place.
        valid: 1 H W, 1 or 0.
    """
    mean = x.mul_(valid).sum((1, 2)) / valid.sum().clamp(min=1)  # C
    x.addcmul_(1 - valid, mean[:, None, None])


def _blur(x: Tensor, valid: Tensor | None, sigma: float) -> None:
    """Gaussian blur in place; with a mask as normalised convolution.

    So the fill of invalid pixels stays out of the valid ones.
    """
    if valid is None:
        colour.blur(x, sigma)
        return
    both = colour.blur(torch.cat([x * valid, valid]), sigma)  # C+1 H W
    torch.div(both[:-1], both[-1:].clamp(min=1e-6), out=x)
    _fill(x, valid)
