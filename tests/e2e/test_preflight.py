"""The look at the nodes before a run, with real ranks that play several nodes."""

import json
import subprocess
import sys

from tests.commands import TINY, skysense
from tests.dist.processes import environment_of, free_port
from tests.paths import PATIENCE, ROOT

# The command, on a host with another name.
ON_HOST = """
import platform, sys
host = sys.argv.pop(1)
platform.node = lambda: host
from launch.__main__ import main
main()
"""
HOSTS = ("a.x", "b.x", "c.x")


def low_port() -> int:
    """A free port that the system gives to nobody."""
    return 10000 + free_port() % 20000


def look(folder, shards, *, absent: int | None = None) -> None:
    """A rank on each of three nodes; one of them can stay away."""
    port = low_port()
    ranks = []
    for rank, host in enumerate(HOSTS):
        if rank == absent:
            continue
        words = ["preflight", "--config", TINY, "--folder", folder, "--patience", 300]
        words += ["--set", f"skysense.data.shards={shards}", "--set", "skysense.ep_size=1"]
        words += ["--set", "train_batch_size=6"]
        if absent is not None:
            words[words.index(300)] = 20
        ranks.append(
            subprocess.Popen(
                [sys.executable, "-c", ON_HOST, host, *map(str, words)],
                cwd=ROOT,
                env=environment_of(rank, 3, port) | {"LOCAL_RANK": "0", "LOCAL_SIZE": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    said = [rank.communicate(timeout=PATIENCE)[0] for rank in ranks]
    expected = 0 if absent is None else 1
    assert [rank.returncode for rank in ranks] == [expected] * len(ranks), said


def judged(folder):
    return skysense(
        "preflight", "--config", TINY, "--folder", folder,
        "--judge", "--nodes", "a b c", "--ranks", 3,
    )  # fmt: skip


def equally_fast(folder) -> None:
    """Give all nodes the figures of the first one: here they share their cores with other work."""
    files = sorted(folder.glob("rank-*.json"))
    figures = json.loads(files[0].read_text())["figures"]
    for file in files:
        file.write_text(json.dumps(json.loads(file.read_text()) | {"figures": figures}))


def test_nodes_that_are_well_and_one_whose_report_is_changed(shards, tmp_path):
    look(tmp_path, shards)
    equally_fast(tmp_path)
    done = judged(tmp_path)
    assert done.returncode == 0, done.stderr
    assert "preflight of 3 nodes, 3 ranks | matrix product" in done.stdout
    assert "all-to-all between two nodes" in done.stdout
    file = tmp_path / "rank-00001.json"
    report = json.loads(file.read_text())
    assert set(report["same"]) >= {"dataset", "code", "version of torch", "driver", "GPUs"}
    report["same"]["dataset"] = "another"
    file.write_text(json.dumps(report))
    done = judged(tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("error: b: dataset: expected ") and line.endswith(", found another")
    assert (tmp_path / "bad_nodes").read_text() == "b\n"


def test_a_node_that_does_not_start(shards, tmp_path):
    look(tmp_path, shards, absent=2)
    equally_fast(tmp_path)
    done = judged(tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()  # not of the others, which came no further for want of it
    assert line.startswith("error: c: expected reports of 1 ranks")
