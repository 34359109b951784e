"""Charts of an audit: frames, dates, invalid pixels, histograms of bands. Each takes the summary's
plain data."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from data.audit.verdicts import off
from data.pages.style import PLAIN, WARNING, WIDTH, colour
from data.tiles.modalities import MODALITIES

MONTHS = "JFMAMJJASOND"
BARS = 40  # of the histogram of frames


def frames(series: dict) -> Figure:
    """For every sensor: frames of a sample, and frames and invalid cells by month."""
    figure = Figure(figsize=(WIDTH, 1.9 * len(series) + 0.2), layout="constrained")
    for row, (name, found) in zip(figure.subplots(len(series), 3, squeeze=False), series.items()):
        _lengths(
            row[0],
            name,
            {int(length): samples for length, samples in found["frames_a_sample"].items()},
        )
        months = np.arange(12)
        row[1].bar(months, found["months"].values(), color=colour(name))
        row[1].set(title=f"{name}: frames by month", ylabel="frames")
        shares = [100 * (share or 0) for share in found["invalid_share_by_month"].values()]
        row[2].bar(months, shares, color=colour(name))
        row[2].set(
            title=f"{name}: invalid cells by month", ylabel="%", ylim=(0, max(5, 1.1 * max(shares)))
        )
        for month, count in zip(months, found["months"].values()):
            if not count:
                row[2].text(
                    month, 0, "none", rotation=90, ha="center", va="bottom", fontsize=7, color=PLAIN
                )
        for axis in row[1:]:
            axis.set_xticks(months, MONTHS)
            axis.grid(False, axis="x")
    return figure


def _lengths(axis: Axes, name: str, lengths: dict[int, int]) -> None:
    """Histogram of the number of frames of a sample."""
    longest = max(lengths)
    width = max(1, -(-longest // BARS))
    axis.hist(
        list(lengths),
        bins=np.arange(0.5, longest + width + 0.5, width),
        weights=list(lengths.values()),
        color=colour(name),
    )
    axis.set(title=f"{name}: frames of a sample", ylabel="samples", xlim=(0, longest + width + 0.5))
    axis.grid(False, axis="x")


def histograms(name: str, bands: Sequence[dict]) -> Figure:
    """One panel a band: its histogram, the measured mean with one deviation, and the registry's
    below it."""
    columns = min(5, max(3, len(bands)))
    rows = -(-len(bands) // columns)
    figure = Figure(figsize=(WIDTH, 1.75 * rows + 0.2), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axis, band in zip(axes, bands):
        edges, counts = np.array(band["histogram"]["edges"]), np.array(band["histogram"]["counts"])
        density = counts / np.diff(edges) / max(counts.sum(), 1)
        axis.stairs(density, edges, fill=True, color=colour(name), alpha=0.55)
        top = density.max()
        for height, mean, std, shade in (
            (1.16, band["mean"], band["std"], PLAIN),
            (1.06, band["registry_mean"], band["registry_std"], WARNING),
        ):
            axis.errorbar(
                mean,
                height * top,
                xerr=std,
                color=shade,
                marker="o",
                markersize=3.5,
                capsize=2.5,
                linewidth=1.2,
            )
        reason = off(band)
        axis.set(ylim=(0, 1.25 * top), yticks=[])
        axis.set_title(
            f"{name} {band['band']}{f': {reason} off' if reason else ''}",
            color=WARNING if reason else PLAIN,
        )
        low, high = edges[0], edges[-1]
        axis.set_xlim(
            min(low, band["registry_mean"] - band["registry_std"]) - 0.02 * (high - low),
            max(high, band["registry_mean"] + band["registry_std"]) + 0.02 * (high - low),
        )
    for axis in axes[len(bands) :]:
        axis.set_axis_off()
    return figure


def unit(name: str) -> str:
    """What a sensor's numbers are, for a caption."""
    sensor = MODALITIES[name]
    return sensor.title if sensor.scale == 1 else f"{sensor.title}, divided by {sensor.scale:g}"
