"""The verdicts on a run: each fault turns its own, and they can be shown."""

import math

import pytest

from engine.config.settings import GuardSettings
from engine.report.evaluation import RankRow
from engine.report.history import History
from engine.report.sections import TEMPLATES
from engine.report.verdicts import Verdict, verdicts
from tests.pages import Page
from tests.unit.engine.report.records import K, record, without_sar

HEALTHY = [RankRow("hr", 20, 3.0, 4.0), RankRow("fused", 20, 5.0, 2.0)]


def answers(records, ranks=HEALTHY):
    """Whether each verdict is good."""
    found = verdicts(History(records), GuardSettings(), prototypes=K, ranks=ranks)
    return [verdict.good for verdict in found]


def test_a_healthy_run():
    history = History([record(step) for step in range(20)])
    found = verdicts(history, GuardSettings(), prototypes=K, ranks=HEALTHY)
    assert all(verdict.good for verdict in found)
    assert "mean 55.300 over the first 2 steps, 30.100 over the last" in found[1].numbers
    assert "0.600 to 0.600 over 13 heads" in found[2].numbers
    assert "hr 0.50, sar 0.50, fused 0.50; wanted above 0.25" in found[4].numbers
    assert "sar global 5.0%, sar local 8.0%; wanted at most 20%" in found[5].numbers
    assert "fused 5.00 of 2.00" in found[6].numbers


@pytest.mark.parametrize(
    "changes, ranks, wrong",
    [
        ({"loss__mgcl__hr__image": None}, HEALTHY, [0]),
        ({"applied": False}, HEALTHY, [0]),
        ({"loss": 60.0}, HEALTHY, [1]),
        ({"loss": None}, HEALTHY, [0, 1]),
        ({"teacher__ms__image__entropy": math.log(K)}, HEALTHY, [2]),
        ({"teacher__queries__entropy": 1e-4}, HEALTHY, [2]),
        ({"teacher__fused__pixel__mean_entropy": 1e-4}, HEALTHY, [3]),
        ({"teacher__fused__object__spread": 0.05}, HEALTHY, [4]),
        ({"dropped__sar__local": 0.3}, HEALTHY, [5]),
        ({}, [RankRow("hr", 20, 1.0000000000000016, 1.2)], [6]),  # rounding alone
        ({}, [RankRow("hr", 20, 2.0, 9.0)], [6]),
        ({}, [RankRow("hr", 20, None, 4.0)], [6]),
        ({}, [RankRow("hr", 2, 1.0, 1.0), RankRow("fused", 20, 5.0, None)], []),
        ({"context__spread": 1e-4, "context__cosine": 1.0}, HEALTHY, [7]),
    ],
)
def test_each_fault_turns_its_own_verdict(changes, ranks, wrong):
    records = [record(step) for step in range(18)] + [record(step, **changes) for step in (18, 19)]
    assert answers(records, ranks) == [index not in wrong for index in range(8)]


def test_a_missing_modality_is_no_fault():
    records = [record(step) for step in range(20)]
    records[0] |= without_sar() | {"loss": 1.0}  # a small total, because terms are missing
    records[19] |= without_sar()
    assert answers(records) == [True] * 8


def test_a_total_without_complete_steps_is_judged():
    assert answers([record(step, loss__ita=0.0) for step in range(10)])[1] is True


def test_the_spread_of_prototypes_stands_beside_that_of_the_start():
    records = [record(0, context__spread=9.5, context__rank=14.0)]
    records += [record(step) for step in range(1, 20)]
    records[19]["context/spread"] = None  # a batch without a region
    found = verdicts(History(records), GuardSettings(), prototypes=K, ranks=HEALTHY)[7]
    assert found.good
    assert "variance 0.200 of the cells' (first step 9.500; wanted above 0.01)" in found.numbers
    assert "effective directions 7.000 (first step 14.000)" in found.numbers
    without = [{k: v for k, v in line.items() if "context" not in k} for line in records]
    assert answers(without)[7] is None


def test_one_step_has_nothing_to_compare():
    found = answers([record(0)], ranks=[])
    assert found[1] is None
    assert found[6] is None


def test_runs_without_experts_have_no_dropped_tokens():
    records = [record(step) for step in range(20)]
    for line in records:
        for key in [key for key in line if key.startswith("dropped/")]:
            del line[key]
    assert answers(records)[5] is None


def test_maps_of_one_object_each_are_not_judged():
    spreads = {f"teacher__{name}__object__spread": 0.0 for name in ("hr", "ms", "sar", "fused")}
    assert answers([record(step, **spreads) for step in range(20)])[4] is None


def test_a_verdict_without_an_answer_is_a_dash():
    shown = [
        Verdict("one?", None, "too few"),
        Verdict("two?", True, "2"),
        Verdict("three?", False, "3"),
    ]
    page = Page(TEMPLATES.section("Summary", "verdicts.html", verdicts=shown).content)
    assert not page.open
    words = "".join(page.words).split("\n")
    marks = [word for word in words if word in ("\u2013", "✓ ok", "✗ look here", "None")]
    assert marks == ["\u2013", "✓ ok", "✗ look here"]
