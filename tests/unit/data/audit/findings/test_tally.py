"""The tally of many records stays small."""

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
    assert len(tally.columns.lon) == len(tally.distances) == 500
    assert tally.columns.lon.itemsize * 500 == 4000
