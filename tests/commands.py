"""The project's own commands, run as a user runs them: real processes, real files."""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests import nursery
from tests.dist.processes import free_port
from tests.environment import BIN, environment
from tests.paths import ROOT

MANIFEST = ROOT / "data" / "samples" / "manifest.jsonl"
TINY = ROOT / "tests" / "e2e" / "tiny.json"
PRETRAIN = ROOT / "launch" / "pretrain.py"


def skysense(*words, folder: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run ``skysense`` in ``folder``, in one process; the caller looks at the exit status."""
    return nursery.run(["-m", "launch", *words], folder=folder, timeout=timeout)


def launched(world: int, words: Sequence[str]) -> list[str]:
    """The command line that trains on ``world`` ranks of this machine by DeepSpeed's launcher."""
    launcher = [str(BIN / "deepspeed"), "--num_gpus", str(world), "--master_port", str(free_port())]
    return [*launcher, str(PRETRAIN), *words]


def training_words(
    shards: Path, run_dir: Path, *arguments: object, config: Path = TINY
) -> list[str]:
    """The options of a training."""
    words = ["--config", config, "--run_dir", run_dir, "--set", f"skysense.data.shards={shards}"]
    return [str(word) for word in (*words, *arguments)]


def pretrain(
    world: int,
    shards: Path,
    run_dir: Path,
    *arguments: object,
    config: Path = TINY,
    timeout: float = 600,
    launcher: bool = False,
) -> subprocess.CompletedProcess:
    """Run the training; the caller looks at the exit status.

    Several ranks are started as by srun, or with ``launcher`` by DeepSpeed's command, which takes
    longer.
    """
    words = training_words(shards, run_dir, *arguments, config=config)
    if launcher:
        return subprocess.run(
            launched(world, words),
            cwd=ROOT,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    start = ["-m", "launch", "pretrain"]
    if world > 1:
        start = ["-m", "tests.ranks", str(world), str(PRETRAIN)]
    return nursery.run([*start, *words], timeout=timeout)


def trained(world: int, shards: Path, run_dir: Path, *arguments, **options) -> Path:
    """``pretrain`` that must succeed; returns the run folder."""
    done = pretrain(world, shards, run_dir, *arguments, **options)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return run_dir


def build_dataset(folder: Path, manifest: Path = MANIFEST) -> Path:
    """Archive and shards of the bundled samples, by the real commands; returns the folder of the
    shards."""
    steps = [
        ("prepare", "--manifest", manifest, "--out", folder / "archive"),
        (
            "shards",
            "--archive",
            folder / "archive",
            "--out",
            folder / "shards",
            "--samples_per_shard",
            8,
        ),
    ]
    for step in steps:
        done = skysense(*step)
        assert done.returncode == 0, done.stderr
    return folder / "shards"


def copy_tree(source: Path, target: Path) -> Path:
    """A copy that a test may damage."""
    return Path(shutil.copytree(source, target))
