"""The journal: what is kept, what is cut off, who is kept out."""

import errno
import fcntl
import json
import os
import subprocess
import sys

import pytest

from data.errors import InputError
from data.jobs import journal as journal_module
from data.jobs.journal import Journal
from tests.paths import PATIENCE, ROOT


@pytest.fixture
def path(tmp_path):
    with Journal(tmp_path / "run.jsonl", "plan a") as journal:
        assert journal.records == []
        for number in range(3):
            journal.append({"number": number})
    return tmp_path / "run.jsonl"


def records(path, plan="plan a", **options):
    with Journal(path, plan, **options) as journal:
        return journal.records


def test_records_come_back_in_order_and_go_on(path):
    with Journal(path, "plan a") as journal:
        assert journal.records == [{"number": number} for number in range(3)]
        journal.append({"number": 3})
    assert [record["number"] for record in records(path)] == [0, 1, 2, 3]


def test_what_is_on_the_disk_is_marked(path, monkeypatch):
    with Journal(path, "plan a") as journal:
        assert journal.on_disk == 0
        journal.append({"number": 3})
        journal.force()
        journal.append({"number": 4})
    with Journal(path, "plan a") as journal:
        assert journal.on_disk == 4 and len(journal.records) == 5
        monkeypatch.setattr(journal_module, "SYNC", 0)
        while b'"on_disk": 6' not in path.read_bytes():  # the background does it, as records come
            journal.append({"number": 5})
    with Journal(path, "plan a") as journal:
        assert 6 <= journal.on_disk <= len(journal.records)


def test_another_plan_is_refused_unless_restarted(path):
    before = path.read_bytes()
    with pytest.raises(InputError, match="--restart"):
        records(path, "plan b")
    assert path.read_bytes() == before
    assert records(path, "plan b", restart=True) == [] == records(path, "plan b")


def test_whatever_byte_a_kill_came_at_whole_lines_stay(path):
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        kept = whole[:size].count(b"\n") - 1  # without the header
        assert len(records(path)) == max(0, kept)
        with Journal(path, "plan a") as journal:
            journal.append({"number": "next"})
        assert len(records(path)) == max(0, kept) + 1  # appended to a whole line


def test_zeros_that_a_power_cut_left_are_cut_off(path):
    whole = path.read_bytes()
    path.write_bytes(whole + b"\0" * 100 + b"\n" + json.dumps({"number": 9}).encode() + b"\n")
    assert len(records(path)) == 3 and path.read_bytes() == whole


def test_one_run_at_a_time_also_against_orphaned_workers(path, monkeypatch):
    monkeypatch.setattr(journal_module, "PATIENCE", 0.2)
    with Journal(path, "plan a") as journal:
        with pytest.raises(InputError, match="another run"):
            records(path)
        worker = journal.lease.held()  # a worker of the run may share it
        worker.__enter__()
    with pytest.raises(InputError, match="another run"):
        records(path)
    worker.__exit__(None, None, None)
    assert len(records(path)) == 3


def test_a_worker_shares_the_lock_of_its_own_run_only(path, monkeypatch):
    with Journal(path, "plan a") as journal:
        late = journal.lease
    with Journal(path, "plan b", restart=True) as journal:
        with pytest.raises(InputError, match="belongs to another run"), late.held():
            pass
        with journal.lease.held():
            monkeypatch.setattr(journal_module, "STRAGGLING", 0.2)
            with pytest.raises(InputError, match="still at work"):
                journal.shut_out_workers()
        journal.shut_out_workers()
        with pytest.raises(InputError, match="is at work here"), journal.lease.held():
            pass
        journal.remove()
    with pytest.raises(InputError, match="same file system"), journal.lease.held():
        pass
    assert not path.exists()  # a late worker makes no journal


def test_a_killed_process_leaves_no_lock(path):
    script = (
        "import os, sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from data.jobs.journal import Journal\n"
        f"journal = Journal(Path({str(path)!r}), 'plan a')\n"
        "journal.append(dict(number=3))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=PATIENCE).returncode == -9
    assert [record["number"] for record in records(path)] == [0, 1, 2, 3]


def test_a_run_of_another_plan_takes_over_what_is_as_good(path, monkeypatch):
    before = path.read_bytes()
    with Journal(path, "plan a") as journal:
        late = journal.lease
    with Journal(path, "plan b", of_any_plan=True) as journal:
        assert journal.is_foreign and len(journal.records) == 3
        with pytest.raises(InputError, match="another run"), late.held():
            pass
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                journal.start_from(journal.records[1:], on_disk=1)
    assert path.read_bytes() == before
    with Journal(path, "plan b", of_any_plan=True) as journal:
        slow = os.open(path, os.O_RDONLY)  # of a worker that is about to lock it
        journal.start_from(journal.records[1:], on_disk=1)
        with pytest.raises(BlockingIOError):
            fcntl.flock(slow, fcntl.LOCK_SH | fcntl.LOCK_NB)
        os.close(slow)
        with pytest.raises(InputError, match="belongs to another run"), late.held():
            pass
        with journal.lease.held():
            journal.append({"number": 3})
    with Journal(path, "plan b", of_any_plan=True) as journal:
        assert not journal.is_foreign and journal.on_disk == 1
        assert [record["number"] for record in journal.records] == [1, 2, 3]


def test_removing_it_removes_what_a_kill_left_beside_it(path, monkeypatch):
    with Journal(path, "plan a") as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", killed)
            with pytest.raises(KeyboardInterrupt):
                journal.start_from([], on_disk=0)
        assert len(list(path.parent.iterdir())) == 2
        journal.remove()
    assert not list(path.parent.iterdir())


def killed(*_):
    """Be called in the moment of a kill."""
    raise KeyboardInterrupt


def test_a_lock_on_a_file_that_was_removed_is_not_taken(path):
    with Journal(path, "plan a") as journal:
        journal.remove()
        with Journal(
            path, "plan b"
        ) as other:  # a new file: the old one's lock does not count for it
            assert other.records == []


def test_a_disk_that_refuses_is_one_line(path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with Journal(path, "plan a") as journal:
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(InputError, match="run.jsonl: cannot be written .No space left"):
            journal.append({"number": 3})
