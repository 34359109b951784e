"""Colour changes of a float32 image C H W with values in [0, 1], in place, on any device.

The values are those of torchvision's functional operations, without their masks, gathers and
temporaries of the image's size, in a seventh of the time (docs/performance.md). On a CPU an image
is worked on in blocks of rows whose temporaries fit in a core's second-level cache.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import pad

BLUR_REACH = 4  # pixels either way: DINOv2's kernel of 9
SOLARISE_THRESHOLD = 128 / 255
LUMA = (0.2989, 0.587, 0.114)  # red, green, blue: ITU-R BT.601, with torchvision's rounding
BLOCK = 2**15  # pixels of a block of rows
# Smaller weights of the blur are left out: subnormal numbers are ten times as slow on a CPU.
FAINT = 1e-8


def brightness(x: Tensor, factor: float) -> Tensor:
    """x * factor, at most 1."""
    return x.mul_(factor).clamp_(max=1)


def contrast(x: Tensor, factor: float) -> Tensor:
    """x * factor + (1 - factor) * the image's mean luma, in [0, 1]. x: 3 H W."""
    red, green, blue = x.mean((1, 2))  # the mean of the luma is the luma of the means
    mean = LUMA[0] * red + LUMA[1] * green + LUMA[2] * blue  # a tensor: no wait for the device
    return torch.add(mean * (1 - factor), x, alpha=factor, out=x).clamp_(0, 1)


def saturation(x: Tensor, factor: float) -> Tensor:
    """x * factor + (1 - factor) * luma, in [0, 1]. x: 3 H W."""
    for rows in _blocks(x):
        torch.add(grey(rows, 1 - factor), rows, alpha=factor, out=rows).clamp_(0, 1)
    return x


def hue(x: Tensor, turns: float) -> Tensor:
    """Turn the hue and keep the greatest and the least channel of each pixel. x: 3 H W.

    Let t in [-3, 3] be the hue in sixths of a turn from red, positive towards green:
    |t| = 1 + (green + blue - red - least) / (greatest - least), with the sign of green - blue.
    A channel whose own hue lies u <= 3 sixths from t is
    least + (greatest - least) * clamp(2 - u, 0, 1).
    Both are continuous, so no case is needed where two channels are equal.

    A third of a turn only exchanges channels. At most one sixth is left to turn, so t', the
    difference of two hues, stays within 6 either way, where u = 3 - ||t'| - 3|.
    """
    thirds = round(3 * turns)
    sixths = 6 * turns - 2 * thirds  # left to turn, in [-1, 1]
    for rows in _blocks(x):
        red, green, blue = rows
        least = torch.minimum(red, green).minimum(blue)
        spread = torch.maximum(red, green).maximum(blue).sub_(least)
        t = (green + blue).sub_(red).sub_(least)
        t.div_(spread.clamp(min=1e-6)).add_(1)  # of grey pixels any number: their spread is 0
        t.copysign_(green - blue).add_(sixths)
        for channel, own in enumerate((0, 2, -2)):
            weight = t.sub(own).abs_().sub_(3).abs_().sub_(1).clamp_(0, 1)  # clamp(2 - u, 0, 1)
            torch.addcmul(least, spread, weight, out=rows[(channel + thirds) % 3])
    return x


def grey(x: Tensor, scale: float = 1.0) -> Tensor:
    """The luma times ``scale``: 3 H W, which is kept, -> 1 H W."""
    red, green, blue = x.split(1)
    luma = red * (LUMA[0] * scale)
    return luma.add_(green, alpha=LUMA[1] * scale).add_(blue, alpha=LUMA[2] * scale)


def solarise(x: Tensor) -> Tensor:
    """1 - x where x >= the threshold.

    Computed as x + (x >= threshold) * (1 - 2 x), which is exact and faster than ``torch.where``.
    """
    for rows in _blocks(x):
        rows.addcmul_(rows.clone().ge_(SOLARISE_THRESHOLD), rows.mul(-2).add_(1))
    return x


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with a kernel of 9 x 9 pixels and reflected borders.

    Args:
        x: C H W.
        sigma: standard deviation in pixels, positive.
    """
    weights = _blur_weights(sigma)
    reach = len(weights) - 1
    if reach == 0:
        return x
    source = pad(x, (reach, reach, reach, reach), mode="reflect")  # C H+2r W+2r
    first = 0
    for rows in _blocks(x):
        last = first + rows.shape[1]
        columns_done = _smooth(source[:, first : last + 2 * reach], 1, weights)  # C h W+2r
        _smooth(columns_done, 2, weights, out=rows)
        first = last
    return x


def _blur_weights(sigma: float) -> list[float]:
    """Weights of the kernel at distance 0, 1, ... pixels, without the faint ones."""
    weights = [math.exp(-0.5 * (k / sigma) ** 2) for k in range(BLUR_REACH + 1)]
    total = weights[0] + 2 * sum(weights[1:])
    return [weight / total for weight in weights if weight / total > FAINT]


def _smooth(x: Tensor, dim: int, weights: list[float], out: Tensor | None = None) -> Tensor:
    """The sum of weights[|k|] * x moved by k along ``dim``.

    The result is shorter than x by the kernel's reach at both ends. It adds shifted slices, because
    torch's convolution is slow if every channel is convolved alone.
    """
    reach = len(weights) - 1
    size = x.shape[dim] - 2 * reach
    out = torch.mul(x.narrow(dim, reach, size), weights[0], out=out)
    for k, weight in enumerate(weights[1:], 1):
        for start in (reach - k, reach + k):
            out.add_(x.narrow(dim, start, size), alpha=weight)
    return out


def _blocks(x: Tensor) -> tuple[Tensor, ...]:
    """Views of blocks of rows, C h W. An accelerator takes the image whole."""
    if x.device.type != "cpu":
        return (x,)
    return x.split(max(1, BLOCK // x.shape[2]), 1)
