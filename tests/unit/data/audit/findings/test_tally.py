"""The tally of many records stays small."""

import tracemalloc

import pytest

from data.audit.findings.tally import Tally
from data.audit.measure.record import Record
from data.audit.measure.registration import Registration


def test_memory_of_the_tally_does_not_follow_the_series():
    """Worst lists stay short, and only the columns grow."""
    tally = Tally()
    for i in range(500):
        tally.add(
            Record(
                i,
                "s",
                key=f"k{i}",
                region=i % 7,
                cells=8,
                dates={"ms": ["2020-01-01", "2020-02-01"]},
                usable={"ms": 2},
                invalid={"ms": [i % 64, 0]},
                registration=Registration(
                    (i / 100, 0.0), stored_correlation=0.1, best_correlation=0.5, lead=0.2
                ),
            )
        )
    assert [shifted.key for shifted in tally.shifts] == [f"k{i}" for i in range(499, 489, -1)]
    assert len(tally.series["ms"].emptiest) == len(tally.series["ms"].longest) == 10
    assert tally.series["ms"].emptiest[0][0] == pytest.approx(1 - 63 / 128)
    assert len(tally.rows) == tally.distances.total() == 500


def test_what_is_kept_of_every_sample_waits_on_the_disk(monkeypatch):
    """10,000 samples: 600 kB of rows in a file, and less than 100 kB of memory."""
    monkeypatch.setattr("data.audit.rules.spilled.IN_MEMORY", 1 << 10)
    tally = Tally()
    records = [Record(i, "s", key="k", cells=8, dates={"ms": ["2020-01-01"]}) for i in range(100)]
    for record in records:
        tally.add(record)
    tracemalloc.start()
    for _ in range(100):
        for record in records:
            tally.add(record)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 100_000
    assert [len(chunk) for chunk in tally.rows.chunks(8000)] == [8000, 2100]
