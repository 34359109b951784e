"""Ranks that were started with different settings, data or code end before the first step."""

import platform
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.commands import TINY, copy_tree, skysense
from tests.dist.processes import environment_of, free_port
from tests.paths import PATIENCE, ROOT

HOST = platform.node()


@dataclass(frozen=True)
class Start:
    """How one rank is started."""

    shards: Path
    words: tuple[str, ...] = ()
    folder: Path = ROOT  # where it is started
    code: Path = ROOT

    def process(self, rank: int, port: int, run: Path) -> subprocess.Popen:
        """The rank of two, as srun would start it."""
        command = [sys.executable, self.code / "launch/pretrain.py", "--config", TINY]
        command += ["--run_dir", run, "--set", f"skysense.data.shards={self.shards}", *self.words]
        return subprocess.Popen(
            list(map(str, command)),
            cwd=self.folder,
            env=environment_of(rank, 2, port) | {"PYTHONPATH": str(self.code)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def refusal(run: Path, *starts: Start) -> str:
    """The one line of two ranks, which both leave with exit code 2 and write nothing."""
    port = free_port()
    ranks = [start.process(rank, port, run) for rank, start in enumerate(starts)]
    errors = [rank.communicate(timeout=PATIENCE)[1] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [2, 2], errors
    lines = "".join(errors).splitlines()
    [line] = [line for line in lines if line.startswith("error:")]
    assert not run.exists()
    return line


@pytest.mark.parametrize(
    "words, place, expected, found",
    [
        (("--set", "optimizer.params.lr=0.5"), "optimizer.params.lr", "0.0005", "0.5"),
        (("--set", "skysense.checkpoint.every=7"), "skysense.checkpoint.every", "100", "7"),
    ],
)
def test_another_setting_on_one_rank(shards, tmp_path, words, place, expected, found):
    line = refusal(tmp_path / "run", Start(shards), Start(shards, words))
    assert line == (
        f"error: {place}: expected {expected} on every rank, as on rank 0 ({HOST}), found {found} "
        f"on rank 1 ({HOST}); start all ranks with the same command, files and code"
    )


def test_another_dataset_in_the_same_place(shards, tmp_path, monkeypatch):
    """As on nodes with disks of their own: the same path, and other samples."""
    copy_tree(shards, tmp_path / "first/shards")
    words = ("--archive", shards.parent / "archive", "--samples_per_shard", 16)
    assert skysense("shards", *words, "--out", tmp_path / "second/shards").returncode == 0
    line = refusal(
        tmp_path / "run",
        Start(Path("shards"), folder=tmp_path / "first"),
        Start(Path("shards"), folder=tmp_path / "second"),
    )
    assert line.startswith("error: dataset: expected ")
    assert line.endswith(
        f"on rank 1 ({HOST}); start all ranks with the same command, files and code"
    )


def test_other_code_on_one_rank(shards, tmp_path):
    for folder in ("data", "engine", "launch", "models"):
        copy_tree(ROOT / folder, tmp_path / folder)
    with open(tmp_path / "engine/training/step.py", "a", encoding="utf-8") as file:
        file.write("# a line that rank 0 does not have\n")
    line = refusal(tmp_path / "run", Start(shards), Start(shards, code=tmp_path))
    assert line.startswith("error: code engine/training/step.py: expected ")
