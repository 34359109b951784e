"""Pictures of displaced images.

They show the high resolution, Sentinel-2, and the edges of the one over the other.
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.audit.findings.records import TileShift
from data.audit.measure.masked_image import MaskedImage, enlarge
from data.audit.measure.record import Record
from data.audit.measure.registration import STEPS, quarter_means
from data.audit.read import Reading
from data.pages.style import WIDTH
from data.shards.dataset import ShardDataset

DRAWN = 4  # of the longest shifts
ROW_HEIGHT = 2.95  # inches
EDGE_PERCENTILE = 85  # of the gradient; a quarter cell with a higher one is an edge
EDGE_COLOUR = (0.95, 0.1, 0.35)
INVALID = (0.93, 0.90, 0.95)  # a pale violet
STRETCH = (2, 98)  # percentiles of the valid pixels that become black and white
LEAST_SPAN = 1e-9  # between black and white


def draw_shifts(dataset: ShardDataset, worst: Sequence[TileShift]) -> Figure:
    """Draw displaced images, one row each.

    A row shows both images, and the edges of the high resolution over Sentinel-2: as stored, and
    moved back by the shift that was found.

    Args:
        dataset: the audited dataset.
        worst: the longest shifts first.
    """
    drawn = worst[:DRAWN]
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(drawn)), layout="constrained")
    for row, tile in zip(figure.subplots(len(drawn), 4, squeeze=False), drawn):
        hr, ms = compared_images(dataset, tile.sample)
        shift = (tile.down_cells or 0.0, tile.right_cells or 0.0)
        down, right = shift
        _show(row[0], stretched(hr), f"hr of {tile.key}")
        _show(row[1], stretched(ms), "ms, mean of B02 to B04")
        _show(
            row[2],
            edges_over(hr, ms, (0.0, 0.0)),
            f"as stored: correlation {tile.correlation_as_stored:.2f}",
        )
        _show(
            row[3],
            edges_over(hr, ms, shift),
            f"shift {down:+.2f} down, {right:+.2f} right undone: {tile.correlation_at_best:.2f}",
        )
    return figure


def compared_images(dataset: ShardDataset, sample: int) -> tuple[MaskedImage, MaskedImage]:
    """The high-resolution and the Sentinel-2 image that the registration compared."""
    entry = dataset.entry(sample)
    record = Record(sample, "", dates=entry.dates, cells=entry.cells)
    reading = Reading(dataset, sample, record)
    reading.high_resolution()
    reading.series("ms")
    return reading.greys["hr"], reading.greys["ms"]


def edges_over(hr: MaskedImage, ms: MaskedImage, shift: tuple[float, float]) -> np.ndarray:
    """Draw the edges of the high resolution in red over Sentinel-2 in grey.

    Args:
        hr: high-resolution brightness.
        ms: Sentinel-2 brightness of the same N cells.
        shift: cells down and right by which the edges are moved back.

    Returns:
        (4N, 4N, 3) between 0 and 1.
    """
    side = STEPS * ms.cells
    down, right = shift
    rows, columns = np.nonzero(_edges(quarter_means(hr)))
    # A mean is centred half a cell behind the quarter that it begins with.
    rows = np.floor(rows + STEPS / 2 - STEPS * down).astype(int)
    columns = np.floor(columns + STEPS / 2 - STEPS * right).astype(int)
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    image = np.kron(stretched(ms), np.ones((STEPS, STEPS, 1)))  # 4N 4N 3
    image[rows[inside], columns[inside]] = EDGE_COLOUR
    return image


def _edges(means: MaskedImage) -> np.ndarray:
    """Where the brightness changes most: bool, of the shape of the means."""
    down, right = np.gradient(means.image)
    gradient = np.hypot(down, right)
    inner = means.valid.copy()  # all four neighbours are valid too
    for axis in (0, 1):
        inner &= np.roll(means.valid, 1, axis)
        inner &= np.roll(means.valid, -1, axis)
    if not inner.any():
        return inner
    return inner & (gradient > np.percentile(gradient[inner], EDGE_PERCENTILE))


def stretched(grey: MaskedImage) -> np.ndarray:
    """A grey picture stretched in contrast, invalid pixels pale violet: (H, W, 3) in 0..1."""
    valid = enlarge(grey.valid, grey.image.shape)
    low = 0.0
    high = 1.0
    if valid.any():
        low, high = np.percentile(grey.image[valid], STRETCH)
    image = np.clip((grey.image - low) / max(high - low, LEAST_SPAN), 0, 1)[..., None]  # H W 1
    return np.where(valid[..., None], image, INVALID)


def _show(axis: Axes, image: np.ndarray, title: str) -> None:
    """An image without scales."""
    axis.imshow(image)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(title, fontsize=8)
