"""The report of a small run made by hand, its verdicts and pictures, and what it refuses."""

import json
import math
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from engine.config.load import load
from engine.config.settings import GuardSettings
from engine.errors import USER_ERRORS, ConfigError
from engine.report.expert_maps import expert_shares
from engine.report.history import History
from engine.report.page import untrained, write
from engine.report.panels import group_means, running_mean
from engine.report.run_files import read
from engine.report.sections import TEMPLATES
from engine.report.verdicts import Verdict, verdicts
from engine.training.loss_terms import LossTerm, TeacherHead
from tests.commands import TINY, skysense
from tests.pages import Page
from tests.unit.checkpoints import write_checkpoint
from tests.unit.tiles import make_tile

STEPS, K = 12, 64
HEADS = [
    f"{feature}/{level}"
    for feature in ("hr", "ms", "sar", "fused")
    for level in ("pixel", "object", "image")
]


def record(step: int, **changes) -> dict:
    """A healthy step's line; ``changes`` by name, slashes as double underscores."""
    loss = 4.0 - 0.1 * step
    line = {
        "step": step,
        "time": 0.0,
        "seconds": 2.0,
        "samples_per_second": 2.0,
        "data_wait": 0.01,
        "loss": 14 * loss,
        "applied": True,
        "gradient_norm": 10.0 / (step + 1),
        "lr": 1e-4,
        "weight_decay": 0.04,
        "momentum": 0.99,
        "teacher_temperature": 0.05,
        "loss/qsacl": loss,
        "loss/ita": loss,
        "loss/moe_balance": 3.0,
        "expert_load": np.full((3, 3, 8), 10 + step).tolist(),
    }
    for head in HEADS:
        line[f"loss/mgcl/{head}"] = loss
    for head in [*HEADS, "queries"]:
        line |= {
            f"teacher/{head}/entropy": 0.6 * math.log(K),
            f"teacher/{head}/mean_entropy": 0.95 * math.log(K),
            f"teacher/{head}/used": 0.5,
        }
    return line | {name.replace("__", "/"): value for name, value in changes.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as the trainer leaves it, but for the training: dataset, configuration, metrics,
    teacher."""
    folder = tmp_path_factory.mktemp("runs")
    write_shards(
        [
            make_tile("everything", 1),
            make_tile("optical", 3, modalities=("hr",)),
            make_tile("two", 2),
            make_tile("series", 4, modalities=("ms", "sar")),
        ],
        folder / "shards",
    )
    config = load(TINY, [f"skysense.data.shards={folder / 'shards'}"])
    run = folder / "run"
    write_checkpoint(
        run / "checkpoints" / "step-00000012",
        untrained(config),
        STEPS,
        2,
        2,
        fingerprint=ShardDataset.open(folder / "shards").fingerprint,
    )
    (run / "config.json").write_text(json.dumps(config.merged))
    (run / "environment.json").write_text(
        json.dumps(
            {
                "command": "pretrain.py --set '<b>'",
                "git": None,
                "python": "3.11",
                "host": "here",
                "packages": {"torch": "2.11.0", "tutel": None},
            }
        )
    )
    lines = [record(step) for step in range(STEPS)]
    lines[3] = record(3, applied=False, loss=None, gradient_norm=None, loss__qsacl=None)
    lines[5] = record(
        5,
        teacher__sar__pixel__used=0.0,
        teacher__sar__pixel__entropy=0.0,
        loss__mgcl__sar__pixel=0.0,
    )
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (run / "quarantine-00001.jsonl").write_text(
        json.dumps({"key": "broken", "reason": "CRC32C of <x>", "step": 4, "substitute": "two"})
        + "\n"
    )
    for rank, records in enumerate(
        [[{"step": 4, "checksum": 5}, {"step": 5, "timeout": 1}], [{"step": 4, "timeout": 2}]]
    ):
        (run / f"faults-{rank:05d}.jsonl").write_text(
            "".join(json.dumps(found) + "\n" for found in records)
        )
    return run


@pytest.fixture(scope="module")
def report(run) -> tuple[Page, dict]:
    out = write(run)
    assert out == run / "report.html" and not list(run.glob(".*"))
    return Page(out.read_text(encoding="utf-8")), json.loads((run / "evaluation.json").read_text())


def test_the_page_needs_nothing_else(report):
    found, _ = report
    inner = [reference for reference in found.references if reference.startswith("#")]
    assert {reference[1:] for reference in inner} == set(found.ids) and len(inner) == 11
    assert all(
        reference.startswith("data:image/png;base64,iVBOR")
        for reference in found.references
        if reference not in inner
    )
    assert (
        found.tags.count("img") == 11
        and not {"script", "link", "iframe"} & set(found.tags)
        and not found.open
    )


def test_the_page_says_what_ran(report):
    words = " ".join("".join(report[0].words).split())
    for expected in (
        "12 of 6",
        "not a checkout",
        "torch 2.11.0",
        "--set '<b>'",
        "4: 3 with hr, 3 with ms, 3 with sar",
        "made for a test",
        "CRC32C of <x>",
        "Skipped updates: 3.",
        "ranks2, experts spread over 2",
    ):
        assert expected in words, expected
    assert "tutel" not in words


def test_a_verdict_without_an_answer_is_a_dash():
    answers = [
        Verdict("one?", None, "too few"),
        Verdict("two?", True, "2"),
        Verdict("3?", False, ""),
    ]
    section = TEMPLATES.section("Summary", "verdicts.html", verdicts=answers)
    page = Page(section.content)
    assert not page.open
    cells = "".join(page.words).split("\n")
    answers = [cell for cell in cells if cell in ("\u2013", "✓ ok", "✗ look here", "None")]
    assert answers == ["\u2013", "✓ ok", "✗ look here"]


def test_the_evaluation_compares_equal_models_as_equal(report):
    evaluation = report[1]
    assert evaluation["step"] == STEPS and evaluation["checkpoint"] == "step-00000012"
    assert (
        evaluation["teacher"] == evaluation["untrained"]
    )  # the teacher was written from the first weights
    assert evaluation["teacher"]["samples_of"] == {"hr": 3, "ms": 3, "sar": 3, "fused": 4}
    assert [verdict["good"] for verdict in evaluation["verdicts"]] == [
        False,
        True,
        True,
        True,
        True,
    ]


HEALTHY = {"hr": 3.0, "fused": 5.0}


def judge(records, ranks=HEALTHY):
    found = verdicts(History(records), GuardSettings(), prototypes=K, ranks=ranks)
    return [verdict.good for verdict in found]


def test_verdicts_of_a_healthy_run():
    history = History([record(step) for step in range(20)])
    found = verdicts(history, GuardSettings(), prototypes=K, ranks=HEALTHY)
    assert all(verdict.good for verdict in found)
    assert "mean 55.300 over the first 2 steps, 30.100 over the last" in found[1].numbers
    assert "0.600 to 0.600 over 13 heads" in found[2].numbers and "fused 5.00" in found[4].numbers


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
        ({}, {"hr": 1.0, "fused": 5.0}, [4]),
        ({}, {"hr": None, "fused": 5.0}, [4]),
    ],
)
def test_each_fault_turns_its_own_verdict(changes, ranks, wrong):
    records = [record(step) for step in range(18)] + [record(step, **changes) for step in (18, 19)]
    assert judge(records, ranks) == [index not in wrong for index in range(5)]


def test_a_missing_modality_is_no_fault():
    nothing = {
        f"teacher/sar/{level}/{kind}": 0.0
        for level in ("pixel", "object", "image")
        for kind in ("entropy", "mean_entropy", "used")
    }
    nothing |= {f"loss/mgcl/sar/{level}": 0.0 for level in ("pixel", "object", "image")}
    records = [record(step) for step in range(20)]
    records[0] |= nothing | {"loss": 1.0}  # a small total, because terms are missing
    records[19] |= nothing
    assert judge(records) == [True] * 5
    history = History(records)
    assert history.complete().tolist() == [False] + [True] * 18 + [False]
    assert np.isnan(history.total()).nonzero()[0].tolist() == [0, 19]
    head = TeacherHead("sar/object")
    assert np.isnan(history.teacher(head, head.entropy)).sum() == 2
    assert np.isnan(history.term(LossTerm("mgcl/sar/object"))).sum() == 2
    assert np.isfinite(history.term(LossTerm("mgcl/hr/pixel"))).all()


def test_a_run_without_any_complete_step_still_has_a_total():
    records = [record(step, loss__ita=0.0) for step in range(10)]
    history = History(records)
    assert np.isfinite(history.total()).all()
    assert np.isnan(history.term(LossTerm("ita"))).all()
    assert judge(records)[1] is True


def test_one_step_has_nothing_to_compare():
    assert judge([record(0)], {})[1] is None and judge([record(0)], {})[4] is None


def test_a_term_knows_its_head():
    assert LossTerm("mgcl/hr/pixel").head == TeacherHead("hr/pixel")
    assert LossTerm("qsacl").head == TeacherHead("queries")
    assert LossTerm("moe_balance").head is None
    assert TeacherHead("hr/pixel").used == "teacher/hr/pixel/used"
    assert TeacherHead("hr/pixel").level == "pixel"
    assert TeacherHead("queries").level == "queries"
    names = [term.name for term in History([record(0)]).loss_terms()]
    assert names[:3] == ["qsacl", "ita", "moe_balance"]
    assert History([record(0)]).teacher_heads() == [
        TeacherHead(name) for name in [*HEADS, "queries"]
    ]


def test_long_series_are_averaged():
    x, y = np.arange(1200.0), np.arange(1200.0) ** 2
    y[2] = math.nan
    short_x, short_y = group_means(x, y, 400)
    assert len(short_x) == 400 and short_x[:2].tolist() == [1.0, 4.0]
    assert short_y[0] == pytest.approx(0.5) and short_y[1] == pytest.approx((9 + 16 + 25) / 3)
    assert running_mean(np.array([1.0, math.nan, 4.0])).tolist() == [1.0, 2.5, 4.0]


def test_expert_shares_are_percent_of_a_modality():
    load = np.zeros((1, 2, 4), int)
    load[0, 0] = [30, 10, 0, 0]
    history = History([record(0, expert_load=load.tolist())])
    figure = expert_shares(history, ["hr", "ms"])
    assert [words.get_text() for words in figure.axes[0].texts] == [
        "75",
        "25",
        "0",
        "0",
        "-",
        "-",
        "-",
        "-",
    ]


def spoil(run: Path, target: Path) -> Path:
    """A copy of the run without what an earlier report wrote."""
    shutil.copytree(run, target)
    for name in ("report.html", "evaluation.json"):
        (target / name).unlink(missing_ok=True)
    return target


@pytest.mark.parametrize(
    "fault, line",
    [
        (lambda run: shutil.rmtree(run), "no such folder; give the --run_dir"),
        (lambda run: (run / "config.json").unlink(), "no config.json in it"),
        (
            lambda run: (run / "metrics.jsonl").unlink(),
            "expected at least one step in metrics.jsonl, found none",
        ),
        (lambda run: (run / "metrics.jsonl").write_text('{"st'), "expected at least one step"),
        (
            lambda run: next(run.rglob("manifest.json")).unlink(),
            "expected a whole checkpoint in checkpoints/, found none",
        ),
        (
            lambda run: next(run.rglob("rank-00000.safetensors")).write_bytes(b"x"),
            "the checkpoint is damaged",
        ),
        (
            lambda run: next(run.rglob("rank-00000.safetensors")).unlink(),
            "found no such file; the checkpoint is damaged",
        ),
        (
            lambda run: write_shards([make_tile("other", 9)], run / "shards"),
            "give its folder with --shards",
        ),
    ],
)
def test_what_is_no_run_is_refused_in_one_line(run, tmp_path, fault, line):
    copy = spoil(run, tmp_path / "run")
    fault(copy)
    shards = copy / "shards" if (copy / "shards").exists() else None
    with pytest.raises(USER_ERRORS, match=re.escape(line)) as error:
        write(copy, shards=shards)
    assert "\n" not in str(error.value)
    assert not (copy / "report.html").exists() and not (copy / "evaluation.json").exists()


def test_other_refusals(run, tmp_path):
    with pytest.raises(ConfigError, match="--out: expected the name of a file"):
        write(run, out=tmp_path / "nowhere" / "report.html")
    with pytest.raises(ConfigError, match="--samples: expected at least 2"):
        write(run, samples=1)
    with pytest.raises(InputError, match="expected a sharded dataset"):
        write(run, shards=tmp_path)


def test_a_report_that_fails_leaves_the_old_one(run, report, monkeypatch):
    def fail(*arguments, **options):
        raise InputError("shard-000000.tar: cut short")

    names = ("report.html", "evaluation.json")
    before = [(run / name).read_bytes() for name in names]
    monkeypatch.setattr("engine.report.page.extract", fail)
    with pytest.raises(InputError, match="cut short"):
        write(run)
    assert [(run / name).read_bytes() for name in names] == before and not list(run.glob(".*"))


def test_the_newest_whole_checkpoint_counts(run, tmp_path, capsys):
    copy = spoil(run, tmp_path / "run")
    half = copy / "checkpoints" / "step-00000013"
    half.mkdir()
    assert read(copy).checkpoint.name == "step-00000012"
    assert "step-00000013" in capsys.readouterr().out  # said, not hidden


def test_the_command_ends_with_2_and_one_line(tmp_path):
    done = skysense("report", tmp_path / "nothing")
    assert done.returncode == 2 and not done.stdout.strip().startswith("report:")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert (
        len(errors) == 1
        and "nothing: expected a run folder" in errors[0]
        and "Traceback" not in done.stderr
    )
