"""Workers of a running cluster, and jobs of a SLURM that runs them at once."""

import os
import stat
import sys

import pytest
from distributed import LocalCluster

from data.errors import InputError
from data.jobs import tasks
from data.jobs.journal import Journal
from data.jobs.places import Running, Slurm
from data.jobs.surroundings import CODE, difference, surroundings
from data.jobs.tasks import on_workers
from tests.dist.processes import free_port
from tests.unit.data.jobs.test_tasks import square


@pytest.fixture
def running(request):
    """A cluster in this process whose worker has as many threads as the test says."""
    with LocalCluster(
        n_workers=request.param,
        threads_per_worker=max(1, request.param),
        processes=False,
        protocol="tcp://",
        dashboard_address="127.0.0.1:0",
    ) as cluster:
        yield Running(cluster.scheduler_address)


@pytest.mark.parametrize("running", [1], indirect=True)
def test_a_running_cluster_works_where_the_command_is(running, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").touch()
    with Journal(tmp_path / "run.jsonl", "plan") as journal:
        results = dict(on_workers(os.path.exists, ["here"], place=running, lease=journal.lease))
    assert results == {"here": True}
    assert dict(on_workers(square, range(50), place=running)) == {i: i * i for i in range(50)}


@pytest.mark.parametrize("running", [1], indirect=True)
@pytest.mark.parametrize("name", ["zarr", "Python", CODE])
def test_other_versions_are_refused(running, monkeypatch, name):
    monkeypatch.setattr(tasks, "surroundings", lambda: surroundings() | {name: "0.1"})
    with pytest.raises(InputError, match=f"{name} .* in place of 0.1; start the workers"):
        list(on_workers(square, [1], place=running))


@pytest.mark.parametrize(
    "running, message",
    [(2, "expected workers with one thread each, found one with 2"), (0, "it has no workers")],
    indirect=["running"],
)
def test_a_cluster_that_does_not_fit_is_refused(running, message):
    with pytest.raises(InputError, match=message):
        list(on_workers(square, [1], place=running))


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:{port}", "nonsense://x"])
def test_a_scheduler_that_is_not_there_is_one_line(address, monkeypatch):
    address = address.format(port=free_port())
    monkeypatch.setattr("data.jobs.connect.CONNECT_SECONDS", 0.5)
    with pytest.raises(InputError, match="no Dask scheduler answers there") as caught:
        list(on_workers(square, [1], place=Running(address)))
    assert "\n" not in str(caught.value)


def test_a_difference_is_named():
    assert difference({"a": "1", "b": "2"}, {"a": "1", "b": "2", "c": "3"}) == ""
    assert (
        difference({"a": "1", "b": "2"}, {"a": "3"}) == "a 3 in place of 1, b absent in place of 2"
    )


SBATCH = """#!/bin/bash
cp "$1" {folder}/job-$$.sh
bash {folder}/job-$$.sh > {folder}/job-$$.log 2>&1 &
echo $! > {folder}/job-$$.pid
echo "Submitted batch job $$"
"""
SCANCEL = """#!/bin/bash
for job in "$@"; do pkill -P $(cat {folder}/job-$job.pid); done
"""


def test_jobs_of_slurm(tmp_path, monkeypatch):
    """What dask-jobqueue submits, run by a stand-in for SLURM that has no queue."""
    for name, text in (("sbatch", SBATCH), ("scancel", SCANCEL)):
        (tmp_path / name).write_text(text.format(folder=tmp_path))
        (tmp_path / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    place = Slurm(partition="cpu", account="me", walltime="00:10:00", memory="2GB")
    results = dict(on_workers(square, range(20), workers=1, place=place))
    assert results == {i: i * i for i in range(20)}
    [job] = tmp_path.glob("job-*.sh")
    script = job.read_text()
    for line in ("-p cpu", "-A me", "-t 00:10:00", "--cpus-per-task=1", "--mem=2G"):
        assert f"#SBATCH {line}\n" in script
    assert f"{sys.executable} -m distributed.cli.dask_worker" in script
    assert "export GDAL_CACHEMAX=64" in script
