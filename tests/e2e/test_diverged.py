"""A run none of whose steps is applied says so, and does not end as if it had trained."""

from engine.checkpoint.files import complete
from engine.checkpoint.health import last_healthy, read_health
from engine.training.metrics import read
from tests.e2e.faults import spoil
from tests.e2e.faults.starts import Order, start_ranks, start_words

HEALTHY = 2  # steps before the gradients are spoilt
STEPS = 6
KEEP = 1


def order(shards, run_dir, steps: int) -> Order:
    """Two ranks that make some steps, save each of them, and give up after three skipped ones."""
    settings = {
        "schedule.steps": STEPS,
        "guard.patience": 3,
        "checkpoint.every": 1,
        "checkpoint.keep": KEEP,
    }
    words = start_words(run_dir, shards)
    for name, value in settings.items():
        words += ["--set", f"skysense.{name}={value}"]
    words += ["--resume", "--stop_at", str(steps)]
    return Order(world=2, words=words, run_dir=str(run_dir))


def test_a_run_that_only_skips_ends_with_exit_code_3_and_keeps_its_last_healthy_state(
    shards, tmp_path
):
    run_dir = tmp_path / "run"
    assert start_ranks(order(shards, run_dir, HEALTHY)).wait() == 0
    spoil.ask(run_dir, spoil.GRADIENT, 1, always=True)
    run = start_ranks(order(shards, run_dir, STEPS))
    assert run.wait() == 3, run.said
    assert "all steps are made, but the last ones were skipped" in run.said
    assert "3 updates in a row were skipped" in run.said
    for step in range(HEALTHY + 1, STEPS + 1):
        assert f"step {step} was skipped on all ranks: its loss is finite" in run.said
    assert [record["applied"] for record in read(run_dir)] == [True] * 2 + [False] * 4
    # Only the newest is to be kept, and the last one before the trouble stays beside it.
    kept = complete(run_dir / "checkpoints")
    assert [folder.name for folder in kept] == ["step-00000002", "step-00000006"]
    assert last_healthy(kept) == kept[0]
    assert read_health(kept[1]).skipped_last == STEPS - HEALTHY
