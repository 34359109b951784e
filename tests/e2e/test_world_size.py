"""The number of ranks and the spread of the experts do not change the run."""

import pytest

from engine.training.metrics import read
from tests.commands import trained

STEPS = 4


@pytest.fixture(scope="module")
def runs(shards, tmp_path_factory):
    """Metrics of the same run at 1, 2 and 4 ranks; the global batch is 4."""
    folder = tmp_path_factory.mktemp("worlds")
    return {
        (world, ep): read(
            trained(
                world,
                shards,
                folder / f"world-{world}-{ep}",
                "--stop_at",
                STEPS,
                "--set",
                f"skysense.ep_size={ep}",
            )
        )
        for world, ep in ((1, 1), (2, 2), (4, 2))
    }


def test_every_loss_term_agrees(runs):
    reference = runs[1, 1]
    assert len(reference) == STEPS
    terms = [name for name in reference[0] if name.startswith("loss")]
    assert {
        "loss",
        "loss/qsacl",
        "loss/ita",
        "loss/moe_balance",
        "loss/mgcl/hr/pixel",
        "loss/mgcl/fused/object",
        "loss/mgcl/ms/image",
        "loss/mgcl/sar/pixel",
    } <= set(terms)
    for run in (runs[2, 2], runs[4, 2]):
        for ours, theirs in zip(run, reference, strict=True):
            for name in terms:
                assert ours[name] == pytest.approx(theirs[name], rel=1e-5, abs=1e-5), (
                    name,
                    ours["step"],
                )
            assert ours["gradient_norm"] == pytest.approx(theirs["gradient_norm"], rel=1e-3)


def test_experts_get_the_same_tokens(runs):
    for run in (runs[2, 2], runs[4, 2]):
        assert run[0]["expert_load"] == runs[1, 1][0]["expert_load"]


def test_terms_are_alive(runs):
    first, last = runs[1, 1][0], runs[1, 1][-1]
    assert all(
        record[name] > 0 for record in (first, last) for name in first if name.startswith("loss/")
    )
    assert any(first[name] != last[name] for name in first if name.startswith("loss/"))
