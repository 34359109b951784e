"""How many operators a step launches: each takes some microseconds of the host."""

from engine.planning.cards import card_of
from engine.planning.making import plan
from engine.planning.plan import Setting
from tests.paths import CONFIGS

LOSSES = 8000  # calls; 45,000 with the blocks of a CPU


def test_losses_of_the_papers_run_make_few_calls_without_kernels():
    preset = CONFIGS / "paper_128gpu.json"
    planned = plan(Setting(path=preset, world_size=128, card=card_of("h20"), kernels="off"))
    calls = 0
    for kind, work in planned.work.items():
        if kind.part == "losses":
            calls += work.launches
    assert 1000 < calls < LOSSES
