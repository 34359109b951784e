"""Pictures of displaced images: high resolution, Sentinel-2, and the edges of one over the other."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.audit.read import Grey, Reading
from data.audit.record import Record
from data.audit.registration import STEPS, quarter_means
from data.pages.style import WIDTH
from data.shards.dataset import ShardDataset

SHOWN = 4  # of the worst
EDGE = 85  # percentile of the gradient above which a quarter cell is an edge
EDGES = (0.95, 0.1, 0.35)  # red, green, blue


def shifted(dataset: ShardDataset, worst: Sequence[dict]) -> Figure:
    """One row a sample: both images, and the edges of the high resolution over Sentinel-2 as stored
    and moved back by the shift found. ``worst``: entries of the summary's registration."""
    worst = worst[:SHOWN]
    figure = Figure(figsize=(WIDTH, 2.95 * len(worst)), layout="constrained")
    for row, entry in zip(figure.subplots(len(worst), 4, squeeze=False), worst):
        greys = images(dataset, entry["sample"])
        hr, ms = greys["hr"], greys["ms"]
        shift = (entry["down_cells"], entry["right_cells"])
        _show(row[0], stretched(hr), f"hr of {entry['key']}")
        _show(row[1], stretched(ms), "ms, mean of B02 to B04")
        _show(
            row[2],
            over(hr, ms, (0, 0)),
            f"as stored: correlation {entry['correlation_as_stored']:.2f}",
        )
        _show(
            row[3],
            over(hr, ms, shift),
            f"shift {shift[0]:+.2f} down, {shift[1]:+.2f} right undone: {entry['correlation_at_best']:.2f}",
        )
    return figure


def images(dataset: ShardDataset, sample: int) -> dict[str, Grey]:
    """The two images that the registration compared."""
    entry = dataset.entry(sample)
    reading = Reading(
        dataset, sample, Record(sample, "", dates=entry["dates"], cells=entry["cells"])
    )
    reading.image()
    reading.series("ms")
    return reading.greys


def over(hr: Grey, ms: Grey, shift: tuple[float, float]) -> np.ndarray:
    """Sentinel-2 in grey at quarter cells with the edges of the high resolution, moved back by a
    shift, in red."""
    side = STEPS * len(ms.valid)
    mean, valid = quarter_means(hr.image, hr.valid)
    gradient = np.hypot(*np.gradient(mean))
    inner = (
        valid
        & np.roll(valid, 1, 0)
        & np.roll(valid, 1, 1)
        & np.roll(valid, -1, 0)
        & np.roll(valid, -1, 1)
    )
    edges = inner & (gradient > np.percentile(gradient[inner], EDGE)) if inner.any() else inner
    # A mean is centred half a cell behind the quarter that it begins with.
    rows, columns = (
        np.floor(place + STEPS / 2 - STEPS * by).astype(int)
        for place, by in zip(np.nonzero(edges), shift)
    )
    kept = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    image = np.kron(stretched(ms), np.ones((STEPS, STEPS, 1)))  # 4N 4N 3
    image[rows[kept], columns[kept]] = EDGES
    return image


def stretched(grey: Grey) -> np.ndarray:
    """H W 3 in 0..1, from the 2nd to the 98th percentile of the valid pixels; invalid ones pale
    violet."""
    valid = np.kron(grey.valid, np.ones((len(grey.image) // len(grey.valid),) * 2, bool))
    low, high = np.percentile(grey.image[valid], (2, 98)) if valid.any() else (0, 1)
    image = np.clip((grey.image - low) / max(high - low, 1e-9), 0, 1)[..., None]
    return np.where(valid[..., None], image, (0.93, 0.90, 0.95))


def _show(axis: Axes, image: np.ndarray, title: str) -> None:
    """An image without scales."""
    axis.imshow(image)
    axis.set(xticks=[], yticks=[])
    axis.grid(False)
    axis.set_title(title, fontsize=8)
