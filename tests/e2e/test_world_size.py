"""The number of ranks and the spread of the experts do not change the run."""

import pytest

from engine.training.metrics import read
from tests.commands import trained
from tests.e2e.conftest import STEPS_ALONE, held_out

ALONE = (1, 1)  # ranks, ep_size
SPREAD = ((2, 2), (4, 2))


@pytest.fixture(scope="module")
def runs(shards, run_alone, run_on_two, tmp_path_factory):
    """Metrics of the first steps of the same run at 1, 2 and 4 ranks; the global batch is 4."""
    run_on_four = tmp_path_factory.mktemp("four") / "run"
    trained(4, shards, run_on_four, *held_out(shards), "--stop_at", STEPS_ALONE)
    return {
        ALONE: read(run_alone.folder),
        (2, 2): read(run_on_two.folder)[:STEPS_ALONE],
        (4, 2): read(run_on_four),
    }


def terms(record: dict) -> list[str]:
    """Names of the total and of all loss terms."""
    return [name for name in record if name.startswith("loss")]


def test_every_loss_term_agrees(runs):
    reference = runs[ALONE]
    assert len(reference) == STEPS_ALONE
    names = terms(reference[0])
    assert {
        "loss",
        "loss/qsacl",
        "loss/ita",
        "loss/moe_balance",
        "loss/mgcl/hr/pixel",
        "loss/mgcl/fused/object",
        "loss/mgcl/ms/image",
        "loss/mgcl/sar/pixel",
    } <= set(names)
    for spread in SPREAD:
        for ours, expected in zip(runs[spread], reference, strict=True):
            for name in names:
                tolerance = pytest.approx(expected[name], rel=1e-5, abs=1e-5)
                assert ours[name] == tolerance, (spread, name, ours["step"])
            assert ours["gradient_norm"] == pytest.approx(expected["gradient_norm"], rel=1e-3)


def test_experts_get_the_same_tokens(runs):
    for spread in SPREAD:
        assert runs[spread][0]["expert_load"] == runs[ALONE][0]["expert_load"]


def test_held_out_tiles_say_the_same(runs):
    names = [name for name in runs[ALONE][0] if name.startswith("evaluate/")]
    assert {"evaluate/steps", "evaluate/effective_rank/fused", "evaluate/knn/stage4"} <= set(names)
    for spread in SPREAD:
        for ours, expected in zip(runs[spread], runs[ALONE], strict=True):
            evaluated = ours["step"] % 3 == 0
            assert ("evaluate/steps" in ours) == ("evaluate/steps" in expected) == evaluated
            if evaluated:
                for name in names:
                    tolerance = pytest.approx(expected[name], rel=0.01, abs=0.01)
                    assert ours[name] == tolerance, (spread, name)


@pytest.mark.parametrize("world, ep_size", [(1, 1), pytest.param(4, 4, marks=pytest.mark.long)])
def test_a_run_goes_on_with_other_ranks(shards, run_on_two, tmp_path, world, ep_size):
    """From the checkpoint of step 3 of two ranks with half of the experts each."""
    arguments = ["--resume", run_on_two.folder / "checkpoints/step-00000003"]
    arguments += ["--set", f"skysense.ep_size={ep_size}"]
    run_dir = trained(world, shards, tmp_path / "run", *held_out(shards), *arguments)
    expected = read(run_on_two.folder)[3:]
    found = read(run_dir)
    assert [record["step"] for record in found] == [3, 4, 5]
    for ours, theirs in zip(found, expected, strict=True):
        for name in terms(theirs):
            tolerance = pytest.approx(theirs[name], rel=1e-5, abs=1e-5)
            assert ours[name] == tolerance, (name, ours["step"])


def test_terms_are_alive(runs):
    first = runs[ALONE][0]
    last = runs[ALONE][-1]
    names = terms(first)
    assert all(record[name] > 0 for record in (first, last) for name in names)
    assert any(first[name] != last[name] for name in names)
