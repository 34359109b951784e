"""What a run says about a step: metrics with their names, and a loss that explains its jumps."""

import math

from engine.training.context import ContextFigures
from engine.training.records import loss_note, metrics_record
from engine.training.schedules import StepSchedule
from engine.training.step import StepReport
from models.moe.loads import TokenKind

SCHEDULE = StepSchedule(
    lr=1e-3, last_layer_lr=0.0, weight_decay=0.1, momentum=0.9, teacher_temperature=0.07
)
WEIGHTS = {"mgcl/hr/image": 1.0, "mgcl/ms/image": 1.0, "qsacl": 1.0, "ita": 1.0, "moe_balance": 0.1}


def report(hr: float, ms: float, ita: float) -> StepReport:
    """A step whose batch lacks each modality, or the labels, whose value is 0."""
    terms = {
        "mgcl/hr/image": hr,
        "mgcl/ms/image": ms,
        "qsacl": 5.0,
        "ita": ita,
        "moe_balance": 2.0,
    }
    total = sum(WEIGHTS[name] * value for name, value in terms.items())
    statistics = {}
    for head, share in (("hr/image", hr), ("ms/image", ms), ("queries", 1.0)):
        statistics[f"{head}/entropy"] = share / 2
        statistics[f"{head}/used"] = min(share, 1.0)
    return StepReport(
        applied=True,
        schedule=SCHEDULE,
        terms={**terms, "total": total},
        weights=WEIGHTS,
        statistics=statistics,
        gradient_norm=1.5,
        expert_load=None,
        dropped={TokenKind("sar", "local"): 0.25},
    )


def test_the_metrics_have_their_names():
    record = metrics_record(report(hr=4.0, ms=3.0, ita=6.0))
    assert record == {
        "loss": 18.2,
        "applied": True,
        "gradient_norm": 1.5,
        "lr": 1e-3,
        "weight_decay": 0.1,
        "momentum": 0.9,
        "teacher_temperature": 0.07,
        "loss/mgcl/hr/image": 4.0,
        "loss/mgcl/ms/image": 3.0,
        "loss/qsacl": 5.0,
        "loss/ita": 6.0,
        "loss/moe_balance": 2.0,
        "teacher/hr/image/entropy": 2.0,
        "teacher/hr/image/used": 1.0,
        "teacher/ms/image/entropy": 1.5,
        "teacher/ms/image/used": 1.0,
        "teacher/queries/entropy": 0.5,
        "teacher/queries/used": 1.0,
        "dropped/sar/local": 0.25,
    }


def test_the_figures_of_the_geo_context_have_their_names():
    step = report(hr=4.0, ms=3.0, ita=6.0)
    step.context = ContextFigures(cosine=0.5, rank=3.0, spread=0.25)
    record = metrics_record(step)
    assert record["context/cosine"] == 0.5
    assert record["context/rank"] == 3.0
    assert record["context/spread"] == 0.25


def test_a_full_batch_measures_every_term():
    full = report(hr=4.0, ms=3.0, ita=6.0)
    assert full.measured_terms() == list(WEIGHTS)
    assert math.isclose(full.mean_loss(), 18.2 / 4.1)
    assert loss_note(full) == "5 terms, mean 4.4390"


def test_terms_without_data_do_not_count():
    """The total of a batch without optical images and labels is smaller, the mean is not."""
    partial = report(hr=0.0, ms=3.0, ita=0.0)
    assert partial.measured_terms() == ["mgcl/ms/image", "qsacl", "moe_balance"]
    assert math.isclose(partial.loss, 8.2)
    assert loss_note(partial) == "3 of 5 terms, mean 3.9048"


def test_entropies_are_those_of_heads_with_data():
    assert report(hr=0.0, ms=3.0, ita=0.0).entropies() == {"ms/image": 1.5, "queries": 0.5}
