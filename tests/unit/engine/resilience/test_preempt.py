"""Orderly leaving: which requests to stop there are, and how ranks agree on one."""

import os
import signal

import pytest

from engine.resilience.preempt import STOP_FILE, Preempt, Request
from models.reducer import Reducer
from tests.unit.engine.resilience.ranks import Ranks


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_waits_for_the_vote(tmp_path, number):
    before = signal.getsignal(number)
    preempt = Preempt(tmp_path)
    assert preempt.vote(Reducer()) == Request.NONE
    os.kill(os.getpid(), number)
    assert preempt.vote(Reducer()) == Request.SIGNAL
    preempt.close()
    assert signal.getsignal(number) == before


def test_stop_file_is_seen_by_rank_0_and_deleted(tmp_path):
    (tmp_path / STOP_FILE).touch()
    first = Preempt(tmp_path, rank=0, signals=())
    second = Preempt(tmp_path, rank=1, signals=())
    assert first.vote(Reducer()) == Request.STOP_FILE
    assert second.vote(Reducer()) == Request.NONE
    assert second.vote(Ranks(Request.STOP_FILE)) == Request.STOP_FILE  # rank 0's vote
    first.close()
    assert not (tmp_path / STOP_FILE).exists()


def test_a_signal_on_another_rank_outvotes_the_file(tmp_path):
    (tmp_path / STOP_FILE).touch()
    preempt = Preempt(tmp_path, signals=())
    assert preempt.vote(Ranks(Request.NONE, Request.SIGNAL)) == Request.SIGNAL


def test_a_folder_that_was_taken_over_outvotes_all(tmp_path):
    preempt = Preempt(tmp_path, signals=())
    assert preempt.vote(Reducer(), taken=True) == Request.TAKEN
    assert preempt.vote(Ranks(Request.SIGNAL), taken=True) == Request.TAKEN
    assert preempt.vote(Ranks(Request.TAKEN, Request.SIGNAL)) == Request.TAKEN
