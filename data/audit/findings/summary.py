"""Counts of all samples -> the records of audit.json."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np

from data.audit.findings.key_pairs import duplicate_findings
from data.audit.findings.records import (
    BandFindings,
    Chart,
    ClassCount,
    ClassFindings,
    Combination,
    Counts,
    LongestGap,
    Places,
    RegionCount,
    RegistrationFindings,
    SeriesFindings,
    SharedShift,
    Summary,
    TileShift,
    ValidShare,
)
from data.audit.findings.suspects import source_findings, suspect_findings
from data.audit.findings.tally import FINEST, Series, Tally
from data.audit.findings.verdicts import verdicts
from data.audit.measure.pixels import Pixels
from data.audit.measure.registration import Registration
from data.audit.measure.shared_shift import SharedRegistration
from data.shards.dataset import ShardDataset
from data.tiles.modalities import MODALITIES
from data.tiles.regions import NO_REGION
from data.tiles.tile import UNLABELLED

FORMAT = "skysense-audit"
VERSION = 2
MONTHS = range(1, 13)
POINTS = 5000  # of the map
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
LARGE_SHIFT = 1.0  # cells: beyond it an image is displaced; Sentinel-2 itself is good to about 12 m
CHART_BINS = 128  # of a band's histogram in the file, over the values that occur
CHART_ENDS = (0.0005, 0.9995)  # shares of the pixels: a chart reaches from one to the other

Key = TypeVar("Key", int, str)


def summarise(dataset: ShardDataset, tally: Tally, pixels: Pixels) -> Summary:
    """Draw up everything that an audit found.

    Args:
        dataset: the audited dataset.
        tally: counts of the records of its samples.
        pixels: measurements of its pixels.
    """
    series = {}
    bands = {}
    for name in MODALITIES:
        if name in tally.series:
            series[name] = series_findings(tally.series[name])
        if pixels.moments[name].count:
            bands[name] = band_findings(name, pixels)
    summary = Summary(
        format=FORMAT,
        version=VERSION,
        fingerprint=dataset.fingerprint,
        samples=len(dataset),
        audited=tally.samples,
        corrupt_samples=tally.corrupt,
        failures=tally.failures,
        counts=count_everything(dataset, tally),
        places=find_places(dataset, tally),
        series=series,
        bands=bands,
        classes=class_findings(dataset, tally, pixels),
        registration=registration_findings(tally, pixels),
        duplicates=duplicate_findings(dataset, tally.rows),
        suspects=suspect_findings(dataset, tally.suspects),
        sources=source_findings(tally.suspects),
    )
    summary.verdicts = verdicts(summary)
    return summary


def count_everything(dataset: ShardDataset, tally: Tally) -> Counts:
    """Count shards, bytes, sensors, sizes, licences."""
    modalities = {}
    for name in MODALITIES:
        if name in tally.series:
            modalities[name] = tally.series[name].lengths.total()
    combinations = []
    for names, samples in tally.combinations.most_common():
        combinations.append(Combination(list(names), samples))
    return Counts(
        shards=len(dataset.manifest.shards),
        bytes_on_disk=dataset.manifest.size,
        bytes=ordered(tally.sizes),
        modalities=modalities,
        combinations=combinations,
        cells=ordered(tally.sides),
        attribution=[credit.model_dump() for credit in dataset.attribution],
    )


def find_places(dataset: ShardDataset, tally: Tally) -> Places:
    """List the regions with their samples, and at most ``POINTS`` points, evenly chosen.

    Samples whose place nobody knows are counted.
    """
    regions = []
    for region, samples in sorted(tally.regions.items()):
        if region == NO_REGION:
            continue
        regions.append(RegionCount(region, dataset.regions.cells[region], samples))
    unknown = tally.regions[NO_REGION]
    chosen = np.linspace(0, tally.regions.total() - unknown, POINTS, endpoint=False)
    chosen = np.unique(chosen.astype(int))
    points = []
    before = 0
    for chunk in tally.rows.chunks(POINTS):
        known = chunk[np.isfinite(chunk["lon"])]
        here = chosen[(chosen >= before) & (chosen < before + len(known))] - before
        for row in known[here]:
            points.append([round(float(row["lon"]), 5), round(float(row["lat"]), 5)])
        before += len(known)
    return Places(
        regions_in_manifest=len(dataset.regions),
        regions=regions,
        points=points,
        unknown=unknown,
    )


def series_findings(series: Series) -> SeriesFindings:
    """Summarise frames, dates and invalid cells of one modality."""
    frames_by_month = {}
    invalid_by_month = {}
    for month in MONTHS:
        frames_by_month[month] = series.months[month]
        invalid_by_month[month] = share(series.invalid[month], series.cells[month])
    return SeriesFindings(
        samples=series.lengths.total(),
        frames=sum(length * samples for length, samples in series.lengths.items()),
        usable_frames=series.usable,
        frames_a_sample=ordered(series.lengths),
        median_frames=median(series.lengths),
        months=frames_by_month,
        years=ordered(series.years),
        gap_median_days=median(series.gaps),
        gap_longest_days=max(series.gaps, default=None),
        longest_gaps=[LongestGap(days, key) for days, key in series.longest],
        invalid_share=share(series.invalid.total(), series.cells.total()),
        invalid_share_by_month=invalid_by_month,
        fewest_valid=[ValidShare(valid, key) for valid, key in series.emptiest],
    )


def band_findings(name: str, pixels: Pixels) -> list[BandFindings]:
    """Put the measured statistics of the valid pixels beside those of the registry."""
    sensor = MODALITIES[name]
    moments = pixels.moments[name]
    histogram = pixels.histograms[name]
    registry_mean: Sequence[float | None] = sensor.mean or [None] * len(sensor.bands)
    registry_std: Sequence[float | None] = sensor.std or [None] * len(sensor.bands)
    percentiles = {percent: histogram.percentile(percent) / sensor.scale for percent in PERCENTILES}
    findings = []
    for band, title in enumerate(sensor.bands):
        findings.append(
            BandFindings(
                band=title,
                pixels=moments.count,
                mean=moments.mean[band] / sensor.scale,
                std=moments.std[band] / sensor.scale,
                low=moments.low[band] / sensor.scale,
                high=moments.high[band] / sensor.scale,
                share_at_low=int(moments.at_low[band]) / moments.count,
                share_at_high=int(moments.at_high[band]) / moments.count,
                percentiles={key: float(values[band]) for key, values in percentiles.items()},
                registry_mean=registry_mean[band],
                registry_std=registry_std[band],
                histogram=chart(histogram.bins.edges / sensor.scale, histogram.counts[band]),
            )
        )
    return findings


def chart(edges: np.ndarray, counts: np.ndarray) -> Chart:
    """Join bins of a histogram until it is coarse enough to draw.

    Args:
        edges: (n + 1,) of the bins.
        counts: (n + 2,), with what lies below and above all bins.

    Returns:
        A histogram from the 0.05th to the 99.95th percentile.
    """
    inner = counts[1:-1].copy()
    total = np.cumsum(inner)
    inner[0] += counts[0]
    inner[-1] += counts[-1]
    low_share, high_share = CHART_ENDS
    low, high = np.searchsorted(total, (low_share * total[-1], high_share * total[-1]))
    joined = max(1, math.ceil((high + 1 - low) / CHART_BINS))
    number = math.ceil((high + 1 - low) / joined)
    starts = low + joined * np.arange(number)
    sums = np.add.reduceat(inner, starts)
    sums[0] += inner[:low].sum()
    last = min(starts[-1] + joined, len(inner))
    return Chart([*edges[starts].tolist(), float(edges[last])], sums.tolist())


def class_findings(dataset: ShardDataset, tally: Tally, pixels: Pixels) -> ClassFindings:
    """Count the label pixels of every class."""
    total = int(pixels.classes.sum())
    labelled = total - int(pixels.classes[UNLABELLED])
    table = []
    for entry in dataset.classes:
        index = entry.index
        count = int(pixels.classes[index])
        table.append(
            ClassCount(
                index=index,
                name=entry.name,
                pixels=count,
                share=share(count, labelled),
                samples=tally.classes[index],
            )
        )
    return ClassFindings(
        samples_with_labels=tally.labelled,
        pixels=total,
        labelled_share=share(labelled, total),
        table=table,
    )


def registration_findings(tally: Tally, pixels: Pixels) -> RegistrationFindings:
    """Summarise the shifts of single tiles, and those that small tiles share."""
    worst = []
    for shifted in tally.shifts:
        found = shifted.registration
        worst.append(TileShift(shifted.sample, shifted.key, found.lead, **_shift(found)))
    shared = []
    for source, pool in sorted(pixels.pools.items()):
        if pool.tiles:
            together = pool.judge()
            shared.append(
                SharedShift(
                    attribution=source,
                    tiles=together.tiles,
                    reason=together.reason,
                    t=together.t,
                    **_shift(together),
                )
            )
    middle = median(tally.distances)
    median_cells = None
    if middle is not None:
        median_cells = middle / FINEST
    beyond = [number for shift, number in tally.distances.items() if shift > LARGE_SHIFT * FINEST]
    return RegistrationFindings(
        judged=tally.distances.total(),
        cannot_tell=ordered(tally.reasons),
        median_cells=median_cells,
        beyond_limit=sum(beyond),
        limit_cells=LARGE_SHIFT,
        worst=worst,
        shared=shared,
    )


def _shift(found: Registration | SharedRegistration) -> dict[str, Any]:
    """The fields that ``TileShift`` and ``SharedShift`` have in common."""
    down = None
    right = None
    distance = None
    if found.shift is not None:
        down, right = found.shift
        distance = float(np.hypot(down, right))
    return {
        "down_cells": down,
        "right_cells": right,
        "distance_cells": distance,
        "correlation_as_stored": found.stored_correlation,
        "correlation_at_best": found.best_correlation,
    }


def share(part: float, whole: float) -> float | None:
    """A share; None where the whole is 0."""
    if not whole:
        return None
    return part / whole


def median(counts: Counter[int]) -> int | None:
    """Lower median of counted numbers; None without any."""
    total = counts.total()
    below = 0
    for value, count in sorted(counts.items()):
        below += count
        if 2 * below >= total:
            return value
    return None


def ordered(counts: Counter[Key]) -> dict[Key, int]:
    """A counter as a dictionary in ascending order of its keys."""
    return dict(sorted(counts.items()))
