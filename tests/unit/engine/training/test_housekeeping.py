"""Garbage collection by step."""

import gc
import weakref

import pytest

from engine.training.housekeeping import GarbageCollection


class Node:
    """Something that only the collector can free."""

    def __init__(self):
        self.me = self


def cycle() -> weakref.ref:
    return weakref.ref(Node())


@pytest.fixture(autouse=True)
def collector():
    """Every test begins and ends with the collector on and nothing frozen."""
    assert gc.isenabled() and not gc.get_freeze_count()
    yield
    assert gc.isenabled() and not gc.get_freeze_count()


def test_it_collects_at_its_steps_alone():
    garbage = GarbageCollection(every=4)
    kept = Node()
    alive = []
    for step in range(2, 11):  # a run that goes on at step 2
        found = cycle()
        for _ in range(3000):  # enough for the automatic collection of the youngest
            Node()
        garbage.after(step)
        alive.append(found() is not None)
        if step == 2:
            assert not gc.isenabled() and gc.get_freeze_count() > 1000
            assert not any(kept is x for x in gc.get_objects())  # never looked at again
    assert alive == [step not in (2, 4, 8) for step in range(2, 11)]
    garbage.close()
    assert any(kept is x for x in gc.get_objects())


def test_zero_leaves_the_collector_alone():
    garbage = GarbageCollection(every=0)
    garbage.after(0)
    assert gc.isenabled() and not gc.get_freeze_count()
    garbage.close()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    try:
        garbage = GarbageCollection(every=1)
        garbage.after(0)
        garbage.close()
        assert not gc.isenabled() and not gc.get_freeze_count()
    finally:
        gc.enable()


def test_closing_before_the_first_step_changes_nothing():
    GarbageCollection(every=1).close()
