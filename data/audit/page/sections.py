"""The sections of audit.html, in order. The text of each is a template in ``templates/``."""

from itertools import zip_longest

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from data.audit.findings.records import (
    Places,
    SeriesFindings,
    SourceFindings,
    SourceSensor,
    Summary,
)
from data.audit.findings.verdicts import MEAN_OFF, STD_RATIO, off
from data.audit.page import charts
from data.audit.page.thumbnails import Card
from data.audit.rules.suspects import LISTED
from data.pages.class_colours import class_colours
from data.pages.outlines import CREDIT
from data.pages.page import Section, Templates
from data.pages.region_map import region_map

TEMPLATES = Templates("data.audit.page")
FAILURES = 500  # lines of the page; audit.json has all
SOURCES_LISTED = 50
SOURCES_DRAWN = 8
FULLEST = 10  # regions that are listed
EXTREMES = 5  # samples with fewest valid cells, or longest gaps, that are listed
# What a verdict is called on the page and on the command line.
VERDICT_WORDS = {
    "wrong": "wrong",
    "look": "worth a look",
    "good": "good",
    "unknown": "cannot tell",
}


def sections(summary: Summary, shifts: Figure | None, cards: list[Card]) -> list[Section]:
    """All sections of a summary.

    Args:
        summary: what the audit found.
        shifts: picture of displaced images, if there are any.
        cards: the worst tiles.
    """
    parts = [
        TEMPLATES.section(
            "Verdicts", "verdicts.html", verdicts=summary.verdicts, words=VERDICT_WORDS
        )
    ]
    if summary.failures:
        parts.append(failures_section(summary))
    parts += [
        TEMPLATES.section(
            "Tiles and sources with faults",
            "suspects.html",
            suspects=summary.suspects,
            cards=cards,
            words=VERDICT_WORDS,
            listed=LISTED,
        ),
        sources_section(summary.sources),
        counts_section(summary),
        places_section(summary.places),
        dates_section(summary),
        bands_section(summary),
        classes_section(summary),
        TEMPLATES.section(
            "High resolution against Sentinel-2",
            "registration.html",
            registration=summary.registration,
            shifts=shifts,
        ),
        TEMPLATES.section("Duplicates", "duplicates.html", duplicates=summary.duplicates),
    ]
    return parts


def sources_section(sources: list[SourceFindings]) -> Section:
    """What each source holds, and when."""
    drawn = None
    if sources:
        drawn = charts.year_charts(sources[:SOURCES_DRAWN])
    return TEMPLATES.section(
        "Sources",
        "sources.html",
        sources=sources,
        drawn=SOURCES_LISTED,
        charts=drawn,
        bands=band_medians,
    )


def band_medians(sensor: SourceSensor) -> list[tuple[str, float, float]]:
    """Rows of (band, median of the tiles' medians, median absolute deviation)."""
    return list(zip(sensor.bands, sensor.median, sensor.deviation))


def failures_section(summary: Summary) -> Section:
    """What could not be read."""
    return TEMPLATES.section(
        "Damaged members",
        "failures.html",
        failures=summary.failures[:FAILURES],
        hidden=max(0, len(summary.failures) - FAILURES),
    )


def counts_section(summary: Summary) -> Section:
    """Samples, bytes, sensors, sizes, licences."""
    return TEMPLATES.section(
        "What the dataset holds",
        "counts.html",
        summary=summary,
        counts=summary.counts,
        bytes_read=sum(summary.counts.bytes.values()),
        percent=percent,
    )


def places_section(places: Places) -> Section:
    """The map, and the regions with most samples."""
    drawn = None
    if places.regions:
        drawn = region_map(
            [region.cell for region in places.regions],
            [region.samples for region in places.regions],
            np.array(places.points).reshape(-1, 2),
        )
    fullest = sorted(places.regions, key=lambda region: -region.samples)
    return TEMPLATES.section(
        "Places",
        "places.html",
        places=places,
        map=drawn,
        credit=CREDIT,
        fullest=fullest[:FULLEST],
    )


def dates_section(summary: Summary) -> Section:
    """Frames, gaps, invalid cells."""
    drawn = None
    if summary.series:
        drawn = charts.frame_charts(summary.series)
    return TEMPLATES.section(
        "Dates and invalid pixels",
        "dates.html",
        series=summary.series,
        charts=drawn,
        extremes=extremes,
        percent=percent,
    )


def extremes(findings: SeriesFindings) -> list[tuple[str, str, str, str]]:
    """Rows of (sample, its share of valid cells, sample, its longest gap in days)."""
    pairs = zip_longest(findings.fewest_valid[:EXTREMES], findings.longest_gaps[:EXTREMES])
    rows = []
    for valid, gap in pairs:
        left = ("", "")
        if valid is not None:
            left = (valid.key, f"{100 * valid.valid_share:.2f} %")
        right = ("", "")
        if gap is not None:
            right = (gap.key, str(gap.days))
        rows.append((*left, *right))
    return rows


def bands_section(summary: Summary) -> Section:
    """Statistics of every band beside the registry's."""
    return TEMPLATES.section(
        "Values of the bands",
        "bands.html",
        bands=summary.bands,
        histograms=charts.histograms,
        unit=charts.unit,
        off=off,
        percent=percent,
        mean_off=f"{MEAN_OFF:g}",
        std_ratio=f"{STD_RATIO:g}",
    )


def classes_section(summary: Summary) -> Section:
    """Shares of the classes, those with most pixels first."""
    table = summary.classes.table
    seen = sorted((entry for entry in table if entry.pixels), key=lambda entry: -entry.pixels)
    colours = class_colours(entry.index for entry in seen)
    return TEMPLATES.section(
        "Classes",
        "classes.html",
        classes=summary.classes,
        seen=seen,
        unseen=[entry.name for entry in table if not entry.pixels],
        colours={index: to_hex(colour) for index, colour in colours.items()},
        percent=percent,
    )


def percent(share: float | None) -> str | None:
    """A share for a table; None where there was nothing to measure."""
    if share is None:
        return None
    return f"{100 * share:.2f} %"
