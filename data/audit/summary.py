"""Counts -> audit.json: plain data, everything that the page shows. docs/audit.md describes the
keys."""

import math
from collections import Counter

import numpy as np

from data.audit import duplicates
from data.audit.duplicates import Pairs
from data.audit.pixels import Pixels
from data.audit.pool import Shared
from data.audit.registration import Registration
from data.audit.tally import NONE, Series, Tally, column
from data.audit.verdicts import verdicts
from data.shards.dataset import ShardDataset
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED

VERSION = 1
LISTED = 20  # pairs of every kind that are named
PLACES = 5000  # dots of the map
PERCENTILES = (1, 5, 25, 50, 75, 95, 99)
LARGE_SHIFT = 1.0  # cells: beyond it an image is displaced; Sentinel-2 itself is good to about 12 m
CHART_BINS = 128  # of a band's histogram in the file, over what was seen


def summarise(dataset: ShardDataset, tally: Tally, pixels: Pixels) -> dict:
    """Everything found, as plain data."""
    found = {
        "format": "skysense-audit",
        "version": VERSION,
        "fingerprint": dataset.manifest["fingerprint"],
        "samples": len(dataset),
        "audited": tally.samples,
        "corrupt_samples": tally.corrupt,
        "failures": [vars(failure) for failure in tally.failures],
        "counts": counts(dataset, tally),
        "places": places(dataset, tally),
        "series": {name: series(tally.series[name]) for name in MODALITIES if name in tally.series},
        "bands": {name: bands(name, pixels) for name in MODALITIES if pixels.moments[name].count},
        "classes": classes(dataset, tally, pixels),
        "registration": registration(tally, pixels),
        "duplicates": pairs(dataset, tally),
    }
    found["verdicts"] = [vars(verdict) for verdict in verdicts(found)]
    return found


def counts(dataset: ShardDataset, tally: Tally) -> dict:
    """Shards, bytes, sensors, sizes, licences."""
    return {
        "shards": len(dataset.manifest["shards"]),
        "bytes_on_disk": sum(shard["size"] for shard in dataset.manifest["shards"]),
        "bytes": ordered(tally.sizes),
        "modalities": {
            name: sum(tally.series[name].lengths.values())
            for name in MODALITIES
            if name in tally.series
        },
        "combinations": [
            {"modalities": list(names), "samples": n}
            for names, n in tally.combinations.most_common()
        ],
        "cells": ordered(tally.sides),
        "attribution": dataset.attribution,
    }


def places(dataset: ShardDataset, tally: Tally) -> dict:
    """Regions with their samples, and dots for a map: at most ``PLACES``, evenly chosen."""
    regions = sorted(tally.regions.items())
    lon, lat = column(tally.lon), column(tally.lat)
    shown = (
        np.unique(np.linspace(0, len(lon) - 1, min(PLACES, len(lon))).astype(int))
        if len(lon)
        else []
    )
    return {
        "regions_in_manifest": len(dataset.regions),
        "regions": [
            {"region": region, "cell": dataset.regions.cells[region], "samples": n}
            for region, n in regions
        ],
        "points": [[round(float(lon[i]), 5), round(float(lat[i]), 5)] for i in shown],
    }


def series(found: Series) -> dict:
    """Frames, dates and invalid cells of one modality."""
    frames = sum(length * samples for length, samples in found.lengths.items())
    cells, invalid = sum(found.cells.values()), sum(found.invalid.values())
    return {
        "samples": sum(found.lengths.values()),
        "frames": frames,
        "usable_frames": found.usable,
        "frames_a_sample": ordered(found.lengths),
        "median_frames": middle(found.lengths),
        "months": {month: found.months[month] for month in range(1, 13)},
        "years": ordered(found.years),
        "gap_median_days": middle(found.gaps),
        "gap_longest_days": max(found.gaps, default=None),
        "longest_gaps": [{"days": days, "key": key} for days, key in found.longest],
        "invalid_share": share(invalid, cells),
        "invalid_share_by_month": {
            month: share(found.invalid[month], found.cells[month]) for month in range(1, 13)
        },
        "fewest_valid": [{"valid_share": valid, "key": key} for valid, key in found.emptiest],
    }


def bands(name: str, pixels: Pixels) -> list[dict]:
    """Measured statistics of the valid pixels beside those of the registry, both divided by the
    sensor's scale."""
    sensor, moments, histogram = MODALITIES[name], pixels.moments[name], pixels.histograms[name]
    percentiles = {percent: histogram.percentile(percent) / sensor.scale for percent in PERCENTILES}
    found = []
    for band, title in enumerate(sensor.bands):
        edges, counts = chart(histogram.bins.edges / sensor.scale, histogram.counts[band])
        found.append(
            {
                "band": title,
                "pixels": moments.count,
                "mean": moments.mean[band] / sensor.scale,
                "std": moments.std[band] / sensor.scale,
                "low": moments.low[band] / sensor.scale,
                "high": moments.high[band] / sensor.scale,
                "share_at_low": int(moments.at_low[band]) / moments.count,
                "share_at_high": int(moments.at_high[band]) / moments.count,
                "percentiles": {
                    percent: float(values[band]) for percent, values in percentiles.items()
                },
                "registry_mean": sensor.mean[band],
                "registry_std": sensor.std[band],
                "histogram": {"edges": edges, "counts": counts},
            }
        )
    return found


def chart(edges: np.ndarray, counts: np.ndarray) -> tuple[list[float], list[int]]:
    """A histogram coarse enough to draw: bins joined, and cut to the 0.05th and 99.95th percentile.
    The outermost bins take what lies beyond them."""
    inner, total = counts[1:-1].copy(), np.cumsum(counts[1:-1])
    inner[0] += counts[0]
    inner[-1] += counts[-1]
    low, high = np.searchsorted(total, (0.0005 * total[-1], 0.9995 * total[-1]))
    joined = max(1, math.ceil((high + 1 - low) / CHART_BINS))
    number = math.ceil((high + 1 - low) / joined)
    starts = low + joined * np.arange(number)
    sums = np.add.reduceat(inner, starts)
    sums[0] += inner[:low].sum()
    last = min(starts[-1] + joined, len(inner))
    return [*edges[starts].tolist(), float(edges[last])], sums.tolist()


def classes(dataset: ShardDataset, tally: Tally, pixels: Pixels) -> dict:
    """Shares of label pixels. ``share``: of the labelled ones."""
    total, labelled = (
        int(pixels.classes.sum()),
        int(pixels.classes.sum() - pixels.classes[UNLABELLED]),
    )
    table = [
        {
            "index": entry["index"],
            "name": entry["name"],
            "pixels": int(pixels.classes[entry["index"]]),
            "share": share(int(pixels.classes[entry["index"]]), labelled),
            "samples": tally.classes[entry["index"]],
        }
        for entry in dataset.classes
    ]
    return {
        "samples_with_labels": tally.labelled,
        "pixels": total,
        "labelled_share": share(labelled, total),
        "table": table,
    }


def registration(tally: Tally, pixels: Pixels) -> dict:
    """Shifts of the high-resolution images against Sentinel-2: of single tiles, and those that
    small tiles share."""
    sources = [
        {
            "attribution": source,
            "tiles": found.tiles,
            "reason": found.reason,
            "t": found.t,
            **shift(found),
        }
        for source, found in (
            (source, pool.judge()) for source, pool in sorted(pixels.pools.items())
        )
        if found.tiles
    ]
    distances = column(tally.distances)
    return {
        "judged": len(distances),
        "cannot_tell": ordered(tally.reasons),
        "median_cells": float(np.median(distances)) if len(distances) else None,
        "beyond_limit": int((distances > LARGE_SHIFT).sum()),
        "limit_cells": LARGE_SHIFT,
        "worst": [
            {"sample": sample, "key": key, "lead": found.lead, **shift(found)}
            for sample, key, found in tally.shifts
        ],
        "shared": sources,
    }


def shift(found: Registration | Shared) -> dict:
    """A shift as plain data, None where there is none."""
    down, right = found.shift or (None, None)
    return {
        "down_cells": down,
        "right_cells": right,
        "distance_cells": None if found.shift is None else float(np.hypot(down, right)),
        "correlation_as_stored": found.zero,
        "correlation_at_best": found.best,
    }


def pairs(dataset: ShardDataset, tally: Tally) -> dict:
    """Samples that are there twice, by what tells."""
    number, lon, lat = column(tally.number), column(tally.lon), column(tally.lat)

    def named(found: Pairs) -> dict:
        return {
            "pairs": found.count,
            "first": [[dataset.entry(int(number[i]))["key"] for i in pair] for pair in found.first],
        }

    looks = [
        duplicates.same_picture(lon, lat, values, values != NONE, LISTED)
        for values in map(column, tally.looks.values())
    ]
    pictures = Pairs(
        sum(found.count for found in looks), sorted(looks[0].first + looks[1].first)[:LISTED]
    )
    return {
        "same_key": named(duplicates.equal(column(tally.keys), LISTED)),
        "same_bytes": named(duplicates.equal(column(tally.content), LISTED)),
        "same_picture": named(pictures),
        "overlapping": named(duplicates.overlapping(lon, lat, column(tally.cells), LISTED)),
    }


def share(part: float, whole: float) -> float | None:
    """A share, None of nothing."""
    return part / whole if whole else None


def middle(counted: Counter) -> float | None:
    """Median of counted numbers, None of none."""
    total, seen = sum(counted.values()), 0
    for value, number in sorted(counted.items()):
        seen += number
        if 2 * seen >= total:
            return value
    return None


def ordered(counted: Counter) -> dict:
    """A counter as a dict in ascending order of its keys."""
    return dict(sorted(counted.items()))
