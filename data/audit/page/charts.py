"""Charts of an audit: frames, dates, invalid cells, histograms of bands."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from data.audit.findings.records import BandFindings, SeriesFindings, SourceFindings
from data.audit.findings.verdicts import off
from data.pages.style import PLAIN, WARNING, WIDTH, colour
from data.tiles.modalities import MODALITIES

MONTHS = "JFMAMJJASOND"
BARS = 40  # at most, of the histogram of frames
ROW_HEIGHT = 2.1  # inches, of the charts of frames
PANEL_HEIGHT = 1.75  # inches, of a band's histogram
YEARS_HEIGHT = 1.3  # inches, of a source's frames by year
BAR = 0.8  # of a year, the bars of all sensors together
TITLE = 120  # characters of a source's name over its chart
HEADROOM = 1.25  # height of a band's panel, in units of its highest bar
MEASURED_HEIGHT = 1.16  # where the measured mean is drawn, in the same units
REGISTRY_HEIGHT = 1.06


def frame_charts(series: Mapping[str, SeriesFindings]) -> Figure:
    """Draw frames of a sample, and frames and invalid cells by month: a row for each sensor."""
    figure = Figure(figsize=(WIDTH, ROW_HEIGHT * len(series) + 0.2), layout="constrained")
    rows = figure.subplots(len(series), 3, squeeze=False)
    for (lengths, frames, invalid), (name, findings) in zip(rows, series.items()):
        _draw_lengths(lengths, name, findings.frames_a_sample)
        _draw_months(frames, name, findings)
        _draw_invalid(invalid, name, findings)
    return figure


def _draw_lengths(axis: Axes, name: str, samples: Mapping[int, int]) -> None:
    """Draw the histogram of the number of frames of a sample."""
    longest = max(samples)
    width = max(1, -(-longest // BARS))
    end = longest + width + 0.5
    axis.hist(
        list(samples),
        bins=np.arange(0.5, end, width).tolist(),
        weights=list(samples.values()),
        color=colour(name),
    )
    axis.set(title=f"{name}: frames of a sample", xlabel="frames", ylabel="samples", xlim=(0, end))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axis.grid(False, axis="x")


def _draw_months(axis: Axes, name: str, findings: SeriesFindings) -> None:
    """Draw the number of frames of each month of the year."""
    axis.bar(range(len(MONTHS)), list(findings.months.values()), color=colour(name))
    axis.set(title=f"{name}: frames by month", ylabel="frames")
    _name_months(axis)


def _draw_invalid(axis: Axes, name: str, findings: SeriesFindings) -> None:
    """Draw the share of invalid cells of each month of the year."""
    percents = [0.0] * len(MONTHS)
    for place, share in enumerate(findings.invalid_share_by_month.values()):
        if share is not None:
            percents[place] = 100 * share
    axis.bar(range(len(MONTHS)), percents, color=colour(name))
    top = max(5, 1.1 * max(percents))
    axis.set(title=f"{name}: invalid cells by month", ylabel="% of the cells", ylim=(0, top))
    for place, frames in enumerate(findings.months.values()):
        if not frames:
            axis.text(
                place,
                0,
                "no frame",
                rotation=90,
                ha="center",
                va="bottom",
                fontsize=7,
                color=PLAIN,
            )
    _name_months(axis)


def _name_months(axis: Axes) -> None:
    axis.set_xticks(range(len(MONTHS)), MONTHS)
    axis.set_xlabel("month")
    axis.grid(False, axis="x")


def year_charts(sources: Sequence[SourceFindings]) -> Figure:
    """Draw the frames of each source by year: a row for each source, a colour for each sensor."""
    figure = Figure(figsize=(WIDTH, YEARS_HEIGHT * len(sources) + 0.3), layout="constrained")
    rows = figure.subplots(len(sources), 1, squeeze=False)[:, 0]
    for axis, source in zip(rows, sources):
        count = max(len(source.sensors), 1)
        for place, (name, sensor) in enumerate(source.sensors.items()):
            years = np.array(list(sensor.years))
            frames = list(sensor.years.values())
            left = years + (place - (count - 1) / 2) * BAR / count
            axis.bar(left, frames, width=BAR / count, color=colour(name), label=name)
        axis.set(title=source.source[:TITLE], ylabel="frames")
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axis.grid(False, axis="x")
        axis.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def histograms(name: str, bands: Sequence[BandFindings]) -> Figure:
    """Draw a panel for each band of a sensor.

    Each shows the band's histogram, above it the measured mean with one deviation, and below that
    those of the registry.
    """
    columns = min(5, max(3, len(bands)))
    rows = -(-len(bands) // columns)
    figure = Figure(figsize=(WIDTH, PANEL_HEIGHT * rows + 0.4), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, band in zip(panels, bands):
        _draw_histogram(axis, name, band)
    for axis in panels[len(bands) :]:
        axis.set_axis_off()
    figure.supxlabel(unit(name), fontsize="medium")
    return figure


def _draw_histogram(axis: Axes, name: str, band: BandFindings) -> None:
    """Draw the panel of one band."""
    edges = np.array(band.histogram.edges)
    counts = np.array(band.histogram.counts)
    density = counts / np.diff(edges) / max(counts.sum(), 1)
    highest = density.max()
    axis.stairs(density, edges, fill=True, color=colour(name), alpha=0.55)
    _draw_moments(axis, band.mean, band.std, height=MEASURED_HEIGHT * highest, shade=PLAIN)
    left = edges[0]
    right = edges[-1]
    if band.registry_mean is not None and band.registry_std is not None:
        left = min(left, band.registry_mean - band.registry_std)
        right = max(right, band.registry_mean + band.registry_std)
        _draw_moments(
            axis,
            band.registry_mean,
            band.registry_std,
            height=REGISTRY_HEIGHT * highest,
            shade=WARNING,
        )
    title = f"{name} {band.band}"
    shade = PLAIN
    if off(band):
        title += f": {off(band)} off"
        shade = WARNING
    axis.set_title(title, color=shade)
    margin = 0.02 * (edges[-1] - edges[0])
    axis.set(xlim=(left - margin, right + margin), ylim=(0, HEADROOM * highest), yticks=[])


def _draw_moments(axis: Axes, mean: float, std: float, *, height: float, shade: str) -> None:
    """Draw a mean as a dot with one deviation on both sides."""
    axis.errorbar(
        mean,
        height,
        xerr=std,
        color=shade,
        marker="o",
        markersize=3.5,
        capsize=2.5,
        linewidth=1.2,
    )


def unit(name: str) -> str:
    """What a sensor's numbers are, for a heading."""
    sensor = MODALITIES[name]
    if sensor.scale == 1:
        return sensor.title
    return f"{sensor.title}, divided by {sensor.scale:g}"
