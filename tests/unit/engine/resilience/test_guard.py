"""Guard and orderly leaving: what raises a warning, what does not, and how ranks agree."""

import math
import os
import signal

import pytest
import torch

from engine.config.settings import GuardSettings
from engine.resilience.guard import Guard, all_finite
from engine.resilience.preempt import EXIT_DONE, EXIT_REQUEUE, STOP_FILE, Preempt
from models.reducer import Reducer

LOG_K = math.log(512)


class Ranks(Reducer):
    """This process and others, whose values it is told."""

    def __init__(self, *others: float):
        self.others, self.world_size = others, 1 + len(others)

    def max(self, x):
        return torch.stack([x, *(torch.full_like(x, value) for value in self.others)]).amax(0)


def guard(**changes) -> Guard:
    return Guard(GuardSettings(**{"patience": 3, **changes}), prototypes=512)


def test_one_rank_that_is_not_finite_decides_for_all():
    assert all_finite(torch.tensor(1.0), Reducer())
    assert all_finite(torch.tensor(1.0), Ranks(0, 0))
    assert not all_finite(torch.tensor(1.0), Ranks(0, 1))
    for value in (math.nan, math.inf, -math.inf):
        assert not all_finite(torch.tensor(value), Ranks(0, 0))


def test_healthy_run_is_quiet():
    watch = guard()
    for step in range(300):
        messages, stop = watch.check(
            5 + math.cos(step), {"fused": LOG_K * (0.3 + 0.2 * math.sin(step))}
        )
        assert not messages and not stop


@pytest.mark.parametrize("share, words", [(0.001, "collapsed"), (0.999, "says nothing")])
def test_collapse_is_said_once_after_patience(share, words):
    watch = guard()
    said = [watch.check(1.0, {"hr": LOG_K / 2, "fused": LOG_K * share})[0] for _ in range(10)]
    assert [len(messages) for messages in said] == [0, 0, 1] + 7 * [0]
    assert "fused" in said[2][0] and words in said[2][0]


def test_a_short_dip_is_forgiven():
    watch = guard()
    for share in (0.001, 0.001, 0.5, 0.001, 0.001):
        assert not watch.check(1.0, {"fused": LOG_K * share})[0]


def test_stop_only_if_asked_and_never_for_a_spike():
    for action in ("warn", "stop"):
        watch = guard(action=action)
        stops = [watch.check(1.0, {"fused": 0.0})[1] for _ in range(4)]
        assert stops == [False, False, action == "stop", False]
    watch = guard(action="stop")
    for step in range(60):
        watch.check(5 + 0.1 * math.cos(step), {})
    messages, stop = watch.check(50.0, {})
    assert len(messages) == 1 and "jumped" in messages[0] and not stop
    assert not watch.check(50.0, {})[0]


def test_spikes_are_measured_in_deviations_of_the_recent_loss():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    watch = guard()
    for value in values:
        assert not watch.check(10 + value.item(), {})[0]
    assert not watch.check(10 + 4.0, {})[0]
    assert watch.check(10 + 9.0, {})[0]


def test_skipped_updates_in_a_row():
    watch = guard()
    said = [watch.check(math.nan, {}, applied=False)[0] for _ in range(3)]
    assert [len(messages) for messages in said] == [0, 0, 1] and "skipped" in said[2][0]
    assert not watch.check(1.0, {}, applied=True)[0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_waits_for_the_vote(tmp_path, number):
    before = signal.getsignal(number)
    leave = Preempt(tmp_path)
    assert leave.vote(Reducer()) is None
    os.kill(os.getpid(), number)
    assert leave.vote(Reducer()) == EXIT_REQUEUE
    leave.close()
    assert signal.getsignal(number) == before


def test_stop_file_is_seen_by_rank_0_and_taken_away(tmp_path):
    (tmp_path / STOP_FILE).touch()
    first, second = Preempt(tmp_path, rank=0, signals=()), Preempt(tmp_path, rank=1, signals=())
    assert first.vote(Reducer()) == EXIT_DONE
    assert second.vote(Reducer()) is None
    assert second.vote(Ranks(1.0)) == EXIT_DONE  # rank 0's vote
    first.close()
    assert not (tmp_path / STOP_FILE).exists()


def test_a_signal_on_another_rank_outvotes_the_file(tmp_path):
    (tmp_path / STOP_FILE).touch()
    assert Preempt(tmp_path, signals=()).vote(Ranks(0.0, 2.0)) == EXIT_REQUEUE
