"""Records as arrays: what a batch could not measure is left out."""

import numpy as np
import pytest

from engine.report.history import History
from engine.training.loss_terms import LossTerm, TeacherHead
from tests.unit.engine.report.records import HEADS, record, without_sar


@pytest.fixture(scope="module")
def history():
    """A run whose first and last batch have no SAR."""
    records = [record(step) for step in range(20)]
    records[0] |= without_sar()
    records[19] |= without_sar()
    return History(records)


def test_steps_without_a_modality_are_not_complete(history):
    assert history.complete().tolist() == [False] + [True] * 18 + [False]
    assert np.isnan(history.total()).nonzero()[0].tolist() == [0, 19]


def test_terms_and_targets_of_a_missing_modality_are_nan(history):
    head = TeacherHead("sar/object")
    assert np.isnan(history.teacher(head, head.entropy)).nonzero()[0].tolist() == [0, 19]
    term = LossTerm("mgcl/sar/object")
    assert np.isnan(history.term(term)).nonzero()[0].tolist() == [0, 19]
    assert np.isfinite(history.term(LossTerm("mgcl/hr/pixel"))).all()
    assert np.isfinite(history.term(LossTerm("moe_balance"))).all()


def test_a_run_without_any_complete_step_still_has_a_total():
    history = History([record(step, loss__ita=0.0) for step in range(10)])
    assert np.isfinite(history.total()).all()
    assert np.isnan(history.term(LossTerm("ita"))).all()


def test_missing_numbers_and_null_are_nan():
    history = History([record(0), record(1, lr=None), {"step": 2, "applied": False}])
    assert np.isnan(history.values("lr")).tolist() == [False, True, True]
    assert history.skipped_steps == [2]


def test_a_term_knows_its_head():
    assert LossTerm("mgcl/hr/pixel").head == TeacherHead("hr/pixel")
    assert LossTerm("qsacl").head == TeacherHead("queries")
    assert LossTerm("moe_balance").head is None


def test_a_head_knows_its_keys():
    head = TeacherHead("hr/pixel")
    assert (head.feature, head.level) == ("hr", "pixel")
    assert head.used == "teacher/hr/pixel/used"
    assert head.entropy in record(0)
    assert head.mean_entropy in record(0)
    assert TeacherHead("queries").level == "queries"


def test_terms_and_heads_are_those_of_the_records():
    history = History([record(0)])
    names = [term.name for term in history.loss_terms()]
    assert names == ["qsacl", "ita", "moe_balance", *(f"mgcl/{head}" for head in HEADS)]
    assert [head.name for head in history.teacher_heads()] == [*HEADS, "queries"]
