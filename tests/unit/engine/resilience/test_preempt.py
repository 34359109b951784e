"""Orderly leaving: which requests to stop there are, and how ranks agree on one."""

import os
import signal
import time

import pytest

from engine.resilience.preempt import STOP_FILE, Preempt, Request
from engine.resilience.signals import SIGNALS, Signals
from models.reducer import Reducer
from tests.paths import PATIENCE
from tests.unit.engine.resilience.ranks import Ranks


@pytest.fixture
def signals():
    """Listening, as after the first step has begun."""
    listening = Signals()
    listening.hold()
    yield listening
    listening.close()


def wait_until_asked(signals: Signals) -> None:
    """The signal is heard in a thread of its own."""
    end = time.monotonic() + PATIENCE
    while not signals.asked:
        assert time.monotonic() < end, "the signal was not heard"
        time.sleep(0.01)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_waits_for_the_vote(tmp_path, signals, number):
    preempt = Preempt(tmp_path, signals)
    assert preempt.vote(Reducer()) == Request.NONE
    os.kill(os.getpid(), number)
    wait_until_asked(signals)
    assert preempt.vote(Reducer()) == Request.SIGNAL


def test_the_handlers_of_before_come_back():
    before = [signal.getsignal(number) for number in SIGNALS]
    listening = Signals()
    assert [signal.getsignal(number) for number in SIGNALS] != before
    listening.close()
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_stop_file_is_seen_by_rank_0_and_deleted(tmp_path, signals):
    (tmp_path / STOP_FILE).touch()
    first = Preempt(tmp_path, signals, rank=0)
    second = Preempt(tmp_path, signals, rank=1)
    assert first.vote(Reducer()) == Request.STOP_FILE
    assert second.vote(Reducer()) == Request.NONE
    assert second.vote(Ranks(Request.STOP_FILE)) == Request.STOP_FILE  # rank 0's vote
    first.close()
    assert not (tmp_path / STOP_FILE).exists()


def test_a_signal_on_another_rank_outvotes_the_file(tmp_path, signals):
    (tmp_path / STOP_FILE).touch()
    preempt = Preempt(tmp_path, signals)
    assert preempt.vote(Ranks(Request.NONE, Request.SIGNAL)) == Request.SIGNAL


def test_a_folder_that_was_taken_over_outvotes_all(tmp_path, signals):
    preempt = Preempt(tmp_path, signals)
    assert preempt.vote(Reducer(), taken=True) == Request.TAKEN
    assert preempt.vote(Ranks(Request.SIGNAL), taken=True) == Request.TAKEN
    assert preempt.vote(Ranks(Request.TAKEN, Request.SIGNAL)) == Request.TAKEN
