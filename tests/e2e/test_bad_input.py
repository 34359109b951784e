"""Wrong input to the training command: one clear line, a non-zero exit, nothing half-written."""

import os

import pytest

from data.shards.dataset import ShardDataset
from engine.resilience.lease import Lease
from tests.commands import TINY, copy_tree, pretrain, skysense


def errors(done) -> list[str]:
    """Lines that a user would read as the error; DeepSpeed's launcher adds log lines of its own."""
    text = done.stdout + done.stderr
    assert "Traceback" not in text, text[-3000:]
    return [line for line in text.splitlines() if line.startswith("error:")]


def refused(done) -> str:
    """The one line of a command that did not start a run."""
    assert done.returncode != 0
    [line] = errors(done)
    return line


@pytest.mark.parametrize(
    "override, words",
    [
        ("skysense.schedule.step=9", ["skysense.schedule.step", 'did you mean "steps"']),
        ("zero_optimization.reduce_scater=true", ["reduce_scater", "reduce_scatter"]),
        ("skysense.data.views.global_pixels.ms=6", ["global_pixels.ms", "multiple of 4", "6"]),
        ("skysense.needs_gpu=true", ["needs_gpu", "torch sees none", "demo_one_process.json"]),
    ],
)
def test_wrong_configuration(tmp_path, override, words):
    run = tmp_path / "run"
    keys = ("--set", "skysense.ep_size=1", "--set", override)
    line = refused(skysense("pretrain", "--config", TINY, "--run_dir", run, *keys))
    for word in words:
        assert word in line
    assert not run.exists()


@pytest.mark.parametrize(
    "override, words, launcher",
    [
        ("gradient_cliping=1.0", ["gradient_cliping", 'did you mean "gradient_clipping"'], True),
        ("train_batch_size=3", ["train_batch_size", "3", "2"], False),
    ],
)
def test_wrong_configuration_on_two_ranks_is_told_once(tmp_path, override, words, launcher):
    keys = ("--set", override)
    line = refused(pretrain(2, tmp_path / "none", tmp_path / "run", *keys, launcher=launcher))
    for word in words:
        assert word in line
    assert not (tmp_path / "run").exists()


def test_a_file_in_the_place_of_the_run_folder(tmp_path):
    (tmp_path / "run").write_text("not a run")
    done = pretrain(1, tmp_path / "none", tmp_path / "run", "--set", "skysense.ep_size=1")
    assert done.returncode != 0
    [line] = errors(done)
    assert str(tmp_path / "run") in line
    assert "choose another --run_dir" in line
    assert (tmp_path / "run").read_text() == "not a run"


def test_folder_that_another_job_works_in(shards, tmp_path):
    lease = Lease(tmp_path / "run")
    line = refused(pretrain(1, shards, tmp_path / "run", "--set", "skysense.ep_size=1"))
    lease.close(worked=False)
    assert f"found attempt 1 (process {os.getpid()} on " in line
    assert not (tmp_path / "run").exists()


def test_missing_shards(tmp_path):
    done = pretrain(2, tmp_path / "nowhere", tmp_path / "run")
    assert done.returncode != 0
    [line] = errors(done)
    assert str(tmp_path / "nowhere") in line
    assert not (tmp_path / "run").exists()


def damage(shards, kind):
    """Damage a copy of a dataset in one way; returns the file that the message must name."""
    tar = sorted(shards.glob("*.tar"))[0]
    if kind == "missing":
        tar.unlink()
    elif kind == "truncated":
        with open(tar, "r+b") as file:
            file.truncate(tar.stat().st_size - 1000)
    else:  # every sample's first member of weight, so that the run meets one at once
        dataset = ShardDataset.open(shards)
        for sample in range(len(dataset)):
            members = dataset.entry(sample).members
            member = members["hr" if "hr" in members else "ms_valid"]
            with open(shards / f"shard-{sample // 8:06d}.tar", "r+b") as file:
                file.seek(member.offset + member.size // 2)
                byte = file.read(1)
                file.seek(-1, 1)
                file.write(bytes([byte[0] ^ 255]))
    return tar


@pytest.mark.parametrize("kind, word", [("missing", "no such file"), ("truncated", "bytes")])
def test_damaged_shard_is_found_before_anything_is_written(shards, tmp_path, kind, word):
    broken = copy_tree(shards, tmp_path / "shards")
    tar = damage(broken, kind)
    done = pretrain(2, broken, tmp_path / "run")
    assert done.returncode != 0
    [line] = errors(done)
    assert tar.name in line and word in line
    assert not (tmp_path / "run").exists()


def test_corrupt_member_stops_the_run_with_its_name(shards, tmp_path):
    broken = copy_tree(shards, tmp_path / "shards")
    damage(broken, "corrupt")
    at_once = ("--set", "skysense.data.store.delay=0")  # else each sample is read for 1.5 s
    done = pretrain(2, broken, tmp_path / "run", *at_once)
    assert done.returncode != 0
    [line] = errors(done)  # although both ranks meet one
    assert "steps: the data cannot be read; see the error above (exit code 2)" in done.stdout
    assert "CRC32C" in line and "sample" in line
    assert not list((tmp_path / "run").glob("checkpoints/step-*"))


def test_folder_of_another_run(shards, run_alone, tmp_path):
    run = copy_tree(run_alone.folder, tmp_path / "run")
    kept = (run / "config.json").read_bytes(), (run / "metrics.jsonl").read_bytes()
    line = refused(pretrain(1, shards, run, "--set", "skysense.ep_size=1"))
    assert str(run) in line and "--resume" in line
    another = ("--set", "skysense.ep_size=1", "--set", "skysense.seed=7")
    line = refused(pretrain(1, shards, run, *another))
    assert str(run) in line and "--resume" in line
    assert "seed" in refused(pretrain(1, shards, run, "--resume", *another))
    assert kept == ((run / "config.json").read_bytes(), (run / "metrics.jsonl").read_bytes())
