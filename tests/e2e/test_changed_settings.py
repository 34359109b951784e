"""A run that continues with other settings takes each of them, or refuses it by name."""

import pytest

from engine.checkpoint.files import newest, read_state
from engine.training.metrics import read
from tests.commands import copy_tree, pretrain
from tests.e2e.conftest import STEPS_ALONE

ONE_RANK = ("--set", "skysense.ep_size=1")


def resumed(shards, run, *overrides):
    """``--resume`` with overrides of the tiny configuration, on one rank."""
    words = [word for override in overrides for word in ("--set", override)]
    return pretrain(1, shards, run, "--resume", *ONE_RANK, *words)


def test_settings_that_the_run_takes_are_listed(shards, run_alone, tmp_path):
    run = copy_tree(run_alone.folder, tmp_path / "run")
    done = resumed(shards, run, "train_batch_size=8", "gradient_clipping=1e-3")
    assert done.returncode == 0, done.stderr
    assert "changed since then: train_batch_size 4 -> 8\n" in done.stdout
    assert "changed since then: gradient_clipping 3.0 -> 0.001\n" in done.stdout
    steps = len(read(run))
    assert steps == 6 > STEPS_ALONE
    # The place in the data is counted in samples.
    assert read_state(newest(run))["samples"] == 4 * STEPS_ALONE + 8 * (steps - STEPS_ALONE)


@pytest.mark.parametrize(
    "override, words",
    [
        ("skysense.model.fusion.heads=2", "expected 4 as in the checkpoint, found 2: it belongs"),
        ("skysense.seed=7", "expected 0 as in the checkpoint, found 7: the order of the samples"),
    ],
)
def test_a_setting_that_the_run_cannot_take_is_refused_by_name(
    shards, run_alone, tmp_path, override, words
):
    run = copy_tree(run_alone.folder, tmp_path / "run")
    kept = [run / name for name in ("config.json", "metrics.jsonl")]
    before = [file.read_bytes() for file in kept]
    done = resumed(shards, run, override)
    assert done.returncode == 2
    [line] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    place = override.partition("=")[0]
    assert f"{newest(run)}: {place}: {words}" in line
    assert before == [file.read_bytes() for file in kept]
