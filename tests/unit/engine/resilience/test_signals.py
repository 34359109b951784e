"""What a signal does to a real process, at each stage of its life."""

import signal
import subprocess
import sys
import time

import pytest

from engine.resilience.signals import EXIT_CONTINUE, SIGNALS
from tests.environment import environment
from tests.paths import PATIENCE, ROOT

# A process that says when it listens, then is held up in one call of the C library.
BLOCKED = """
import ctypes
from engine.resilience.signals import Signals
signals = Signals()
{before}
print("ready", flush=True)
while True:
    ctypes.CDLL(None).pause()
"""
HOLDING = "signals.hold()"


def start(code: str, **options) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_before_the_first_step_a_signal_ends_the_process_at_once(number):
    process = start(BLOCKED.format(before=""))
    process.send_signal(number)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_CONTINUE
    assert said == (
        f"{signal.Signals(number).name} before the first step: ended, nothing to save "
        "(exit code 75)\n"
    )


def test_the_same_signal_again_ends_a_process_that_blocks():
    process = start(BLOCKED.format(before=HOLDING))
    try:
        for number in SIGNALS:  # one of each is one request
            process.send_signal(number)
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)  # passed on by a launcher: the same request
        time.sleep(3.0)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == EXIT_CONTINUE
    assert said == "SIGTERM again: ended without a save (exit code 75)\n"


def test_what_nohup_ignores_stays_ignored():
    def ignore_hangup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    process = start(BLOCKED.format(before=""), preexec_fn=ignore_hangup)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == EXIT_CONTINUE


FORKED = """
import os, signal, time
from engine.resilience.signals import Signals
signals = Signals()
signals.hold()
if os.fork() == 0:
    print("ready", flush=True)
    time.sleep(0.7)
    os._exit(9)
time.sleep(0.2)
os.killpg(0, signal.SIGTERM)
_, status = os.wait()
print(signals.asked, os.waitstatus_to_exitcode(status))
signals.close()
"""


def test_a_forked_process_ignores_what_asks_the_rank_to_stop():
    process = start(FORKED, start_new_session=True)
    said, _ = process.communicate(timeout=PATIENCE)
    assert said == "True 9\n"
