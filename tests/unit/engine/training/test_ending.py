"""Reasons to end a run: each has a sentence for the log, and the exit code that scripts rely on."""

from engine.resilience.preempt import Request
from engine.training.ending import Ending, requested


def test_exit_codes():
    codes = {ending.name: ending.exit_code for ending in Ending}
    assert codes == {
        "DONE": 0,
        "DIVERGED": 3,
        "STOP_AT": 0,
        "STOP_FILE": 0,
        "SIGNAL": 75,
        "GUARD": 3,
        "DATA": 2,
    }


def test_every_ending_has_a_reason_of_its_own():
    assert len({ending.reason for ending in Ending}) == len(Ending)


def test_requests_of_the_vote():
    assert requested(Request.NONE) is None
    assert requested(Request.STOP_FILE) is Ending.STOP_FILE
    assert requested(Request.SIGNAL) is Ending.SIGNAL
