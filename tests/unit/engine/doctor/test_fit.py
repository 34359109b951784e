"""Whether a run fits the memory of this machine."""

import os

import pytest
import torch

from engine.doctor import fit as module
from engine.doctor.fact import ACTIVE, MISSING
from engine.doctor.fit import GIB, PROGRAM, fit
from engine.doctor.machine import available_memory
from engine.planning.cards import card_of
from engine.planning.making import plan
from engine.planning.plan import Setting
from tests.commands import TINY

SETTING = Setting(path=TINY, world_size=2, card=card_of("h100"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="looks at the memory of the host alone")
def test_ranks_on_a_cpu_need_what_the_plan_says(monkeypatch):
    planned = plan(SETTING)
    need = 2 * (planned.memory.reserved + planned.memory.saved + PROGRAM)
    monkeypatch.setattr(module, "plan", lambda setting: planned)
    for available, state in ((need + GIB, ACTIVE), (need - GIB, MISSING)):
        monkeypatch.setattr(module, "available_memory", lambda size=available: size)
        [fact] = fit(SETTING, local_ranks=2)
        assert fact.state == state
        assert f"about {need / GIB:.1f} GiB by plan for the ranks here (2)" in fact.reason


def test_memory_that_is_available_is_less_than_the_machine_has():
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert GIB < available_memory() < total
