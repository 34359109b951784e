"""The report of a small run made by hand, and what it refuses."""

import json
import re
import shutil
from pathlib import Path

import pytest

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from engine.config.load import load
from engine.errors import USER_ERRORS, ConfigError
from engine.report.page import untrained, write
from engine.report.run_files import read
from engine.training import rollback
from engine.training.rollback import Rollback
from tests.commands import TINY, skysense
from tests.pages import Page
from tests.unit.checkpoints import write_checkpoint
from tests.unit.engine.report.records import STEPS, record
from tests.unit.tiles import make_tile


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """A run folder as the trainer leaves it: dataset, configuration, metrics, teacher."""
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
    write_lines(run / "metrics.jsonl", lines)
    broken = {"key": "broken", "reason": "CRC32C of <x>", "step": 4, "substitute": "two"}
    write_lines(run / "quarantine-00001.jsonl", [broken])
    first_rank = [{"step": 4, "checksum": 5}, {"step": 5, "timeout": 1}]
    write_lines(run / "faults-00000.jsonl", first_rank)
    write_lines(run / "faults-00001.jsonl", [{"step": 4, "timeout": 2}])
    diverged = Rollback(
        number=1,
        step=9,
        reason="20 updates in a row were skipped",
        checkpoint="checkpoints/step-00000007",
        first_sample=28,
        next_sample=41,
        attempt=1,
    )
    rollback.write(run, [diverged])
    return run


def write_lines(path: Path, records: list[dict]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in records))


@pytest.fixture(scope="module")
def report(run) -> tuple[Page, dict]:
    out = write(run)
    assert out == run / "report.html"
    assert not list(run.glob(".*"))
    return Page(out.read_text(encoding="utf-8")), json.loads((run / "evaluation.json").read_text())


def test_the_page_needs_nothing_else(report):
    page, _ = report
    contents = []
    for reference in page.references:
        if reference.startswith("#"):
            contents.append(reference[1:])
        else:
            assert reference.startswith("data:image/png;base64,iVBOR")
    assert contents == page.ids
    assert len(contents) == 11
    assert page.tags.count("img") == 12
    assert not {"script", "link", "iframe"} & set(page.tags)
    assert not page.open


def test_the_page_says_what_ran(report):
    page, _ = report
    words = " ".join("".join(page.words).split())
    for expected in (
        "12 of 6",
        "not a checkout",
        "torch 2.11.0",
        "--set '<b>'",
        "4: 3 with hr, 3 with ms, 3 with sar",
        "made for a test",
        "CRC32C of <x>",
        "Skipped updates: 3.",
        "all ranks: 5 x checksum, 3 x timeout.",
        "1 record in the quarantine files",
        "1 rollback: the run had diverged",
        "9 13 checkpoints/step-00000007 20 updates in a row were skipped",
        "ranks2, experts spread over 2",
    ):
        assert expected in words, expected
    assert "tutel" not in words


def test_the_evaluation_compares_equal_models_as_equal(report):
    _, evaluation = report
    assert evaluation["step"] == STEPS
    assert evaluation["checkpoint"] == "step-00000012"
    # The teacher was written from the first weights.
    assert evaluation["teacher"] == evaluation["untrained"]
    assert evaluation["teacher"]["samples_of"] == {
        "hr, stage4": 3,
        "ms, stage4": 3,
        "sar, stage4": 3,
        "fused": 4,
    }
    good = [verdict["good"] for verdict in evaluation["verdicts"]]
    assert good == [False, True, True, True, True, True, True, True]


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
    assert [(run / name).read_bytes() for name in names] == before
    assert not list(run.glob(".*"))


def test_the_newest_whole_checkpoint_counts(run, tmp_path, capsys):
    copy = spoil(run, tmp_path / "run")
    half = copy / "checkpoints" / "step-00000013"
    half.mkdir()
    assert read(copy).checkpoint.name == "step-00000012"
    assert "step-00000013" in capsys.readouterr().out  # said, not hidden


def test_the_command_ends_with_2_and_one_line(tmp_path):
    done = skysense("report", tmp_path / "nothing")
    assert done.returncode == 2
    assert not done.stdout.strip().startswith("report:")
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "nothing: expected a run folder" in errors[0]
    assert "Traceback" not in done.stderr
