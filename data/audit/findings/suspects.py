"""Faults of tiles and sources -> the records of audit.json."""

from collections import Counter

import numpy as np

from data.audit.findings.records import (
    FaultCount,
    SourceFindings,
    SourceSensor,
    SuspectFindings,
    SuspectSourceFindings,
    SuspectTile,
)
from data.audit.measure.fault import LOOK, WRONG
from data.audit.measure.sources import SensorTally
from data.audit.rules.suspects import Suspects
from data.shards.dataset import ShardDataset
from data.tiles.modalities import MODALITIES

WORST_FIRST = (WRONG, LOOK)


def suspect_findings(dataset: ShardDataset, suspects: Suspects) -> SuspectFindings:
    """List the worst tiles of every kind of fault, and the sources with one.

    Args:
        dataset: the audited dataset, for the keys.
        suspects: what the audit found.
    """
    tallies = suspects.sources.tallies
    counts = fault_counts(suspects.counts)
    tiles = []
    for count in counts:
        for suspect in suspects.worst[count.verdict, count.sensor, count.kind]:
            tiles.append(
                SuspectTile(
                    sample=suspect.sample,
                    key=dataset.entry(suspect.sample).key,
                    source=tallies[suspect.source].name,
                    verdict=count.verdict,
                    sensor=count.sensor,
                    kind=count.kind,
                    reason=suspect.fault.reason,
                )
            )
    sources = []
    for suspect_source in suspects.of_sources:
        fault = suspect_source.fault
        sources.append(
            SuspectSourceFindings(
                source=tallies[suspect_source.source].name,
                verdict=fault.verdict,
                sensor=fault.sensor,
                kind=fault.kind,
                reason=fault.reason,
            )
        )
    sources.sort(key=lambda source: (WORST_FIRST.index(source.verdict), source.source))
    return SuspectFindings(counts, tiles, sources)


def fault_counts(counts: Counter[tuple[str, str, str]]) -> list[FaultCount]:
    """Counts of (verdict, sensor, kind): the wrong ones first, then the most frequent."""
    rows = [FaultCount(*kind, tiles) for kind, tiles in counts.items()]
    rows.sort(key=lambda row: (WORST_FIRST.index(row.verdict), -row.tiles, row.sensor, row.kind))
    return rows


def source_findings(suspects: Suspects) -> list[SourceFindings]:
    """Describe every source, the largest first."""
    findings = []
    for number, tally in enumerate(suspects.sources.tallies):
        sensors = {}
        for name in MODALITIES:
            if name in tally.sensors:
                sensors[name] = _sensor(suspects, number, name, tally.sensors[name])
        findings.append(
            SourceFindings(
                source=tally.name,
                tiles=tally.tiles,
                faults=fault_counts(tally.faults),
                sensors=sensors,
            )
        )
    return sorted(findings, key=lambda source: (-source.tiles, source.source))


def _sensor(suspects: Suspects, source: int, name: str, tally: SensorTally) -> SourceSensor:
    """Describe one sensor of a source."""
    median: list[float] = []
    deviation: list[float] = []
    rows = suspects.rows.get(name)
    if rows is not None and source in rows.of_source:
        medians = rows.of_source[source].rows(rows.dtype)["median"].astype(np.float64)  # n C
        middle = np.median(medians, axis=0)
        median = middle.tolist()
        deviation = np.median(np.abs(medians - middle), axis=0).tolist()
    return SourceSensor(
        tiles=tally.tiles,
        frames=tally.frames,
        first=tally.first,
        last=tally.last,
        years=dict(sorted(tally.years.items())),
        bands=list(MODALITIES[name].bands),
        median=median,
        deviation=deviation,
    )
