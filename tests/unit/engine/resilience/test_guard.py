"""The guard: what raises a warning, what does not, and when it ends the run."""

import json
import math

import pytest
import torch

from engine.config.settings import GuardSettings
from engine.resilience.guard import Guard, all_finite
from models.moe.loads import TokenKind
from models.reducer import Reducer
from tests.unit.engine.resilience.ranks import Ranks

LOG_K = math.log(512)


def guard(**changes) -> Guard:
    settings = GuardSettings(**{"patience": 3, **changes})
    return Guard(settings, prototypes=512)


def test_one_rank_that_is_not_finite_decides_for_all():
    assert all_finite(torch.tensor(1.0), Reducer())
    assert all_finite(torch.tensor(1.0), Ranks(0, 0))
    assert not all_finite(torch.tensor(1.0), Ranks(0, 1))
    for value in (math.nan, math.inf, -math.inf):
        assert not all_finite(torch.tensor(value), Ranks(0, 0))


def test_healthy_run_is_quiet():
    watch = guard()
    for step in range(300):
        entropies = {"fused": LOG_K * (0.3 + 0.2 * math.sin(step))}
        verdict = watch.check(5 + math.cos(step), entropies)
        assert not verdict.warnings
        assert not verdict.stop


@pytest.mark.parametrize("share, words", [(0.001, "collapsed"), (0.999, "says nothing")])
def test_collapse_is_said_once_after_patience(share, words):
    watch = guard()
    entropies = {"hr": LOG_K / 2, "fused": LOG_K * share}
    warnings = [watch.check(1.0, entropies).warnings for _ in range(10)]
    assert [len(messages) for messages in warnings] == [0, 0, 1] + 7 * [0]
    [message] = warnings[2]
    assert "fused" in message
    assert words in message


def test_a_short_dip_is_forgiven():
    watch = guard()
    for share in (0.001, 0.001, 0.5, 0.001, 0.001):
        assert not watch.check(1.0, {"fused": LOG_K * share}).warnings


@pytest.mark.parametrize("action", ["warn", "stop"])
def test_collapse_stops_the_run_only_if_asked(action):
    watch = guard(action=action)
    stops = [watch.check(1.0, {"fused": 0.0}).stop for _ in range(4)]
    assert stops == [False, False, action == "stop", False]


def test_a_spike_is_reported_once_and_never_stops_the_run():
    watch = guard(action="stop")
    for step in range(60):
        watch.check(5 + 0.1 * math.cos(step), {})
    verdict = watch.check(50.0, {})
    [message] = verdict.warnings
    assert "jumped" in message
    assert not verdict.stop
    assert not watch.check(50.0, {}).warnings


def test_spikes_are_measured_in_deviations_of_the_recent_loss():
    values = torch.randn(200, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    watch = guard()
    for value in values:
        assert not watch.check(10 + value.item(), {}).warnings
    assert not watch.check(10 + 4.0, {}).warnings
    assert watch.check(10 + 9.0, {}).warnings


def calm(**changes) -> Guard:
    """A guard that has seen a quiet loss of about 5."""
    watch = guard(**changes)
    for step in range(60):
        watch.check(5 + 0.1 * math.cos(step), {})
    return watch


@pytest.mark.parametrize("action", ["warn", "stop", "rollback"])
def test_a_loss_that_stays_high_has_diverged(action):
    watch = calm(action=action)
    verdicts = [watch.check(50.0, {}) for _ in range(5)]
    assert [len(verdict.warnings) for verdict in verdicts] == [1, 0, 1, 0, 0]
    assert "for 3 steps since it jumped" in verdicts[2].warnings[0]
    stops = [verdict.stop for verdict in verdicts]
    assert [verdict.diverged is not None for verdict in verdicts] == stops
    if action == "rollback":
        assert stops == [False, False, True, True, True]
    else:
        assert stops == 5 * [False]
        assert watch.high == 0  # it is at home there now


def test_a_spike_that_goes_by_itself_is_no_divergence():
    watch = calm(action="rollback")
    for loss in (50.0, 50.0, 5.0, 50.0, 50.0, 5.0):
        assert watch.check(loss, {}).diverged is None
    # What is not finite is neither high nor low.
    watch = calm(action="rollback")
    losses = (50.0, math.nan, 50.0, 50.0)
    high = []
    for loss in losses:
        watch.check(loss, {}, applied=math.isfinite(loss))
        high.append(watch.high)
    assert high == [1, 1, 2, 3]


def test_skips_in_a_row_are_a_divergence_for_as_long_as_they_last():
    """A run that was only to warn, and goes on with another action, goes back at its next skip."""
    watch = guard(action="rollback")
    verdicts = [watch.check(math.nan, {}, applied=False) for _ in range(4)]
    assert [verdict.stop for verdict in verdicts] == [False, False, True, True]
    assert verdicts[3].diverged == "4 updates in a row were skipped"
    assert watch.check(5.0, {}).diverged is None


def test_a_collapse_is_nothing_to_go_back_from():
    watch = guard(action="rollback")
    verdicts = [watch.check(1.0, {"fused": 0.0}) for _ in range(3)]
    assert [verdict.stop for verdict in verdicts] == [False, False, True]
    assert verdicts[2].diverged is None


def test_tokens_dropped_for_long_are_reported_and_never_stop_the_run():
    watch = guard(action="stop", dropped=0.2)
    hungry, served = TokenKind("sar", "local"), TokenKind("hr", "global")
    verdicts = [watch.check(1.0, {}, dropped={hungry: 0.25, served: 0.1}) for _ in range(5)]
    assert [len(verdict.warnings) for verdict in verdicts] == [0, 0, 1, 0, 0]
    assert "20% of the tokens of sar in local views for 3 steps, now 25%" in verdicts[2].warnings[0]
    assert not any(verdict.stop for verdict in verdicts)


def test_skipped_updates_in_a_row():
    watch = guard()
    warnings = [watch.check(math.nan, {}, applied=False).warnings for _ in range(3)]
    assert [len(messages) for messages in warnings] == [0, 0, 1]
    assert "skipped" in warnings[2][0]
    assert not watch.check(1.0, {}, applied=True).warnings


@pytest.mark.parametrize("stop", [2, 55, 61, 64])
def test_a_guard_that_is_saved_and_goes_on_says_what_one_without_a_stop_says(stop):
    """Skips, a collapse, dropped tokens and a spike, each around one of the stops."""
    events = []
    for step in range(70):
        loss = 5 + 0.1 * math.cos(step)
        if step in (62, 63, 64):
            loss = 50.0
        entropies = {"fused": LOG_K / 2}
        if 53 < step < 60:
            entropies = {"fused": 0.0}
        dropped = {TokenKind("hr", "global"): float(step > 60)}
        events.append({"loss": loss, "entropies": entropies, "dropped": dropped})
    applied = [step not in (0, 1, 2) for step in range(70)]
    whole = guard()
    expected = [whole.check(**event, applied=a) for event, a in zip(events, applied)]
    assert len([verdict for verdict in expected if verdict.warnings]) == 5

    first = guard()
    found = [first.check(**event, applied=a) for event, a in zip(events[:stop], applied)]
    second = guard()
    second.load_state(json.loads(json.dumps(first.state())))
    found += [second.check(**event, applied=a) for event, a in zip(events[stop:], applied[stop:])]
    assert found == expected
