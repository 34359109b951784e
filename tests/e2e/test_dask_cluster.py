"""A running Dask cluster whose workers and scheduler are really killed changes no byte."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine

from tests.dist.processes import free_port
from tests.e2e.kills import (
    finish,
    kill_group,
    reaches,
    start,
    stop_in_a_task,
    tree,
    wait_for,
)

# The sources of the other test, made again here.
from tests.e2e.test_killed_preparation import SOME_REJECTED, command, published
from tests.e2e.test_killed_preparation import manifest as manifest
from tests.e2e.test_killed_preparation import peaceful as peaceful
from tests.environment import environment
from tests.paths import PATIENCE

ENDING = 10  # seconds that a nanny has to end its workers
LOST = "the connection to the scheduler is lost"


class Cluster:
    """A scheduler and a nanny with two workers, as a user starts them."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = free_port()
        self.address = f"tcp://127.0.0.1:{self.port}"
        self.scheduler = self.nanny = None

    def start(self) -> None:
        """Start what is not there."""
        if self.scheduler is None:
            self.scheduler = self._run("scheduler", "--host", "127.0.0.1", "--port", self.port)
        if self.nanny is None:
            options = ("--nthreads", 1, "--nworkers", 2, "--death-timeout", PATIENCE)
            self.nanny = self._run("worker", self.address, *options)
        end = time.monotonic() + PATIENCE
        while len(self.workers()) < 2 or b"Registered to" not in self.log("worker"):
            assert time.monotonic() < end, self.log("worker")
            time.sleep(0.05)

    def workers(self) -> list[int]:
        """Processes that do tasks: those that the nanny has started."""
        pids = []
        for thread in Path(f"/proc/{self.nanny.pid}/task").iterdir():
            pids += map(int, (thread / "children").read_text().split())
        spawned = []
        for pid in sorted(pids):
            with suppress(FileNotFoundError):  # it has just died
                if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    spawned.append(pid)
        return spawned

    def kill_scheduler(self) -> None:
        """SIGKILL to the scheduler; workers that have lost theirs do not come back, so they end.

        One that is just starting waits for its scheduler instead, and its nanny for the worker.
        """
        self.scheduler.kill()
        self.nanny.terminate()
        self.scheduler.wait()
        try:
            self.nanny.wait(timeout=ENDING)
        except subprocess.TimeoutExpired:
            os.killpg(self.nanny.pid, signal.SIGKILL)
            self.nanny.wait()
        self.scheduler = None
        self.nanny = None

    def log(self, name: str) -> bytes:
        """What a process has said since it was started."""
        return (self.folder / f"{name}.log").read_bytes()

    def _run(self, *words) -> subprocess.Popen:
        with open(self.folder / f"{words[0]}.log", "wb") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *map(str, words), "--no-dashboard"],
                cwd=self.folder,
                env=environment() | {"TMPDIR": str(self.folder)},
                stderr=log,
                start_new_session=True,
            )


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    cluster.start()
    yield cluster
    if cluster.nanny is not None:
        cluster.kill_scheduler()


def kill_cluster(cluster, manifest, out, kills: int) -> None:
    """Prepare while workers, and every fourth time the scheduler, are killed; continue then."""
    rng = random.Random(kills)
    line = command(manifest, out, "--scheduler", cluster.address)
    process = start(*line)
    for kill in range(1, kills + 1):
        goal = published(out) + rng.randint(1, 6)
        wait_for(reaches(lambda: published(out), goal), process)
        if kill % 4:
            wait_for(cluster.workers, process)  # the nanny may be starting both anew
            os.kill(rng.choice(cluster.workers()), signal.SIGKILL)
            continue
        cluster.kill_scheduler()
        _, stderr = finish(process, status=2)
        assert len(stderr.splitlines()) == 1 and LOST in stderr
        cluster.start()
        process = start(*line)
    finish(process, SOME_REJECTED)


@pytest.mark.parametrize("kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_killed_workers_and_schedulers_change_nothing(cluster, manifest, peaceful, tmp_path, kills):
    kill_cluster(cluster, manifest, tmp_path / "archive", kills)
    assert tree(tmp_path / "archive") == peaceful
    assert [path.name for path in tmp_path.iterdir()] == ["archive"]


def test_a_worker_that_outlives_the_command_holds_off_the_next_run(
    cluster, manifest, peaceful, tmp_path
):
    out = tmp_path / "archive"
    line = command(manifest, out, "--scheduler", cluster.address)
    process = start(*line)
    wait_for(lambda: published(out) >= 5, process)
    worker = cluster.workers()[0]
    stop_in_a_task(worker, out.with_name(out.name + ".partial.jsonl"))
    kill_group(process)
    _, stderr = finish(start(*line), status=2)
    assert len(stderr.splitlines()) == 1 and "is at work here" in stderr
    os.kill(worker, signal.SIGCONT)
    finish(start(*line), SOME_REJECTED)
    assert tree(out) == peaceful


def camera(folder: Path, bands: list[str], dtype: str) -> np.ndarray:
    """An image of one date of a sensor ``camera`` with these bands, its sensors and manifest."""
    sensor = {"key": "camera", "bands": bands, "gsd": 10, "unit": "x", "dtype": dtype}
    sensor["nodata"] = None
    (folder / "sensors.json").write_text(json.dumps({"sensors": [sensor]}))
    image = np.random.default_rng(0).integers(1, 200, (len(bands), 12, 12)).astype(dtype)
    profile = {"driver": "GTiff", "crs": "EPSG:32631", "dtype": dtype, "count": len(bands)}
    place = Affine(10, 0, 5e5, 0, -10, 5.6e6)
    with rasterio.open(
        folder / "a.tif", "w", width=12, height=12, transform=place, **profile
    ) as file:
        file.write(image)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "camera", "bands": bands}
    record = {"key": "t", "licence": "CC0-1.0", "attribution": "nobody"}
    record["sources"] = [source | {"date": "2020-05-01"}]
    (folder / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    return image


def test_runs_whose_sensors_contradict_each_other_use_one_cluster(cluster, tmp_path):
    for bands, dtype in ((["a", "b", "c"], "uint16"), (["a"], "uint8")):
        folder = tmp_path / dtype
        folder.mkdir()
        image = camera(folder, bands, dtype)
        archive = folder / "archive"
        there = ("--scheduler", cluster.address)
        own = ("--sensors", folder / "sensors.json")
        finish(start(*command(folder / "manifest.jsonl", archive, *own, *there)))
        finish(start("shards", "--archive", archive, "--out", folder / "shards", *there))
        stored = zarr.open_array(str(archive / "tiles/t/camera"), mode="r")
        assert stored.dtype == dtype
        np.testing.assert_array_equal(stored[0], image)
