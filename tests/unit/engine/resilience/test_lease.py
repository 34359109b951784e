"""One job a run folder, with real processes that are really stopped and killed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from engine.errors import ConfigError
from engine.resilience.lease import ATTEMPTS, FILE, Lease, last_origin, read
from tests.paths import ROOT

BEAT = 0.05
PATIENCE = 0.6  # seconds until a job counts as gone that stands still
LONG = 60  # the same where it works, and may have to wait for a processor
# A job that says what it got, and then works until a line comes in, which asks it to check.
JOB = f"""
import sys
from pathlib import Path
from engine.errors import ConfigError
from engine.resilience.lease import Lease
from tests.paths import PATIENCE
try:
    lease = Lease(Path(sys.argv[1]), beat={BEAT}, lease={LONG})
    print(lease.attempt, flush=True)
    for line in sys.stdin:
        lease.check()
        print("checked", flush=True)
    lease.close(worked=True)
except ConfigError as error:
    print("error:", error, flush=True)
"""


@contextmanager
def job(folder):
    """A job in another process; it is killed at the end if it still runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def said(process) -> str:
    """The next line that is no notice of waiting."""
    while "waiting" in (line := process.stdout.readline()):
        pass
    return line.strip()


def take(folder) -> Lease:
    return Lease(folder, beat=BEAT, lease=PATIENCE)


def elsewhere(folder) -> None:
    """Make the lease that of another machine, where nobody can see which processes run."""
    content = json.loads((folder / FILE).read_text())
    content["holder"] |= {"host": "node7", "birth": "another boot", "job": "4711"}
    (folder / FILE).write_text(json.dumps(content))


def test_the_second_job_ends_with_a_line_that_names_the_first(tmp_path):
    with job(tmp_path / "run") as first, job(tmp_path / "other") as unconcerned:
        assert said(first) == said(unconcerned) == "1"
        with job(tmp_path / "run") as second:
            line = said(second)
        assert re.fullmatch(
            rf"error: {tmp_path}/run: expected a run folder that no job works in, found attempt 1 "
            rf"\(process {first.pid} on \S+ since [-0-9]+ [:0-9]+\); end that job first, "
            "or choose another --run_dir",
            line,
        )
        first.stdin.write("check\n")
        first.stdin.flush()
        assert said(first) == "checked"


def test_of_jobs_that_start_at_once_one_gets_the_folder(tmp_path):
    with job(tmp_path) as one, job(tmp_path) as two, job(tmp_path) as three:
        lines = sorted(said(process) for process in (one, two, three))
        assert lines[0] == "1"
        assert all("found attempt 1 (process" in line for line in lines[1:])
    assert [file.name for file in (tmp_path / ATTEMPTS).iterdir()] == ["00000001.json"]


def test_a_killed_job_of_this_machine_is_followed_at_once(tmp_path):
    with job(tmp_path) as first:
        said(first)
        first.kill()
        first.wait()
        began = time.monotonic()
        lease = Lease(tmp_path, lease=60)
        assert time.monotonic() - began < 5
        assert lease.attempt == 2
        lease.close(worked=True)


def test_a_job_of_another_machine_is_followed_when_its_beat_stands_still(tmp_path):
    take(tmp_path).close(worked=True)
    content = json.loads((tmp_path / FILE).read_text())
    (tmp_path / FILE).write_text(json.dumps({**content, "ended": False}))
    elsewhere(tmp_path)
    began = time.monotonic()
    lease = take(tmp_path)
    assert time.monotonic() - began >= PATIENCE
    assert lease.attempt == 2
    lease.close(worked=True)


def test_a_job_that_wakes_up_after_another_took_over_may_not_write(tmp_path):
    with job(tmp_path) as first:
        said(first)
        first.send_signal(signal.SIGSTOP)
        os.waitpid(first.pid, os.WUNTRACED)  # returns when it stands
        second = take(tmp_path)
        first.send_signal(signal.SIGCONT)
        first.stdin.write("check\n")
        first.stdin.flush()
        line = said(first)
        assert f"found attempt 2 (process {os.getpid()} on " in line
        assert line.endswith("this job ends without saving")
        second.check()  # the old holder has not written over the new one
        assert read(tmp_path).holder.attempt == 2
        second.close(worked=True)


def test_the_thread_notices_without_being_asked(tmp_path):
    lease = take(tmp_path)
    content = json.loads((tmp_path / FILE).read_text())
    content["holder"] |= {"attempt": 9}
    (tmp_path / FILE).write_text(json.dumps(content))
    end = time.monotonic() + PATIENCE
    while lease.taken_by is None and time.monotonic() < end:
        time.sleep(BEAT)
    assert lease.taken_by.attempt == 9
    with pytest.raises(ConfigError, match="as attempt 1, found attempt 9"):
        lease.check()
    lease.close(worked=True)
    assert read(tmp_path).ended is False  # the file is the other job's


def test_a_folder_that_was_made_for_nothing_goes_again(tmp_path):
    take(tmp_path / "runs/a").close(worked=False)
    assert not (tmp_path / "runs/a").exists()
    take(tmp_path / "runs/a").close(worked=True)
    take(tmp_path / "runs/a").close(worked=False)
    assert read(tmp_path / "runs/a").ended
    assert read(tmp_path / "runs/a").holder.attempt == 2


def test_a_damaged_lease_is_named(tmp_path):
    (tmp_path / FILE).write_text("{")
    with pytest.raises(ConfigError, match=f"{FILE}: expected a file of this program"):
        take(tmp_path)


def test_the_last_attempt_that_began_says_where(tmp_path):
    assert last_origin(tmp_path) is None
    for origin, expected in ((tmp_path / "x/step-1", tmp_path / "x/step-1"), (None, None)):
        lease = take(tmp_path)
        lease.begin(origin)
        lease.close(worked=True)
        take(tmp_path).close(worked=False)  # refused before its first step
        assert last_origin(tmp_path) == expected
