"""The project's own commands, run as a user runs them: real processes, real files."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.dist.processes import ROOT, free_port

BIN = Path(sys.executable).parent
MANIFEST = ROOT / "data" / "samples" / "manifest.jsonl"
TINY = ROOT / "tests" / "e2e" / "tiny.json"


def environment() -> dict[str, str]:
    """This environment with the project importable, one thread a process, and the CPU as
    DeepSpeed's accelerator."""
    return {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
    }


def skysense(*words, folder: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
    """Run ``skysense`` in ``folder``, in one process; the caller looks at the exit status."""
    command = [sys.executable, "-m", "launch", *map(str, words)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=timeout
    )


def pretrain_command(
    world: int, shards: Path, run_dir: Path, *arguments, config: Path = TINY
) -> list[str]:
    """The documented command line for ``world`` processes of this machine.

    One process needs no launcher, which takes 5 s to import what it needs.
    """
    return [
        *_starter(world),
        "--config",
        str(config),
        "--run_dir",
        str(run_dir),
        "--set",
        f"skysense.data.shards={shards}",
        *map(str, arguments),
    ]


def _starter(world: int) -> list[str]:
    """The first words of a training's command line."""
    if world == 1:
        return [sys.executable, "-m", "launch", "pretrain"]
    launcher = [str(BIN / "deepspeed"), "--num_gpus", str(world)]
    return [*launcher, "--master_port", str(free_port()), str(ROOT / "launch" / "pretrain.py")]


def pretrain(
    world: int, shards: Path, run_dir: Path, *arguments, config: Path = TINY, timeout: float = 600
) -> subprocess.CompletedProcess:
    """Run the training; the caller looks at the exit status."""
    command = pretrain_command(world, shards, run_dir, *arguments, config=config)
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=timeout
    )


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
