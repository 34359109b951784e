"""skysense bench kernels: values come first and decide, times and memory are what they say, both
are written."""

import json
import re
import time

import pytest
import torch

from engine.bench.case import BOTH, FORWARD, Candidate, Case, Goal, Work
from engine.bench.cases import run
from engine.bench.cases.run import CASES
from engine.bench.compare import compare
from engine.bench.memory import extra_bytes, result_bytes
from engine.bench.picture import picture
from engine.bench.report import table
from engine.bench.timing import interleaved, times_faster
from launch.__main__ import dispatch
from models.pretraining.losses import head_tiles
from tests.commands import skysense

CPU = torch.device("cpu")
RATES = {"copy": 1e10, "torch.float32": 1e11}


@pytest.fixture
def uncompiled(monkeypatch):
    """The compiler takes half a minute a case: here the formula stands in for its compiled form."""
    for module in CASES.values():
        if hasattr(module, "compiled"):
            monkeypatch.setattr(module, "compiled", lambda function: function)


def tiny(name):
    return CASES[name].case(CASES[name].SIZES["tiny"][0], CPU)


def wait(seconds):
    return lambda *given: time.sleep(seconds)


@pytest.mark.parametrize("name", CASES)
def test_all_ways_of_a_case_have_the_exact_values_and_gradients(name, uncompiled):
    """Also the library's ways: whatever runs here is compared with float64."""
    found = compare(tiny(name), CPU, 1, RATES)
    assert not found["failed"] and len(found["checks"]) >= 2
    for check in found["checks"].values():
        assert check["state"] == "right" and max(check["errors"]) < 1e-5
    rows = {(row["way"], row["part"]): row for row in found["rows"]}
    parts = {"sinkhorn": 1, "head_loss": 2}.get(
        name, 3
    )  # the head loss makes its gradients in the forward pass
    assert len(rows) == len(found["checks"]) * parts
    assert all(
        row["median"] > 0 and row["faster"][row["base"]]["median"] > 0 for row in rows.values()
    )
    assert "kernel" in "".join(found["left_out"]) or name in ("head_loss", "global_attention")


def test_a_spoiled_value_fails(uncompiled, monkeypatch):
    """One part in a hundred of the student's loss, one row of the gradient: both are seen, and
    nothing is timed."""
    real = head_tiles.cross_entropy

    def wrong_value(*arguments, **options):
        values, pulled = real(*arguments, **options)
        return values * 1.01, pulled

    def wrong_gradient(*arguments, **options):
        values, pulled = real(*arguments, **options)
        if pulled is not None:
            pulled[0] = 0
        return values, pulled

    for spoiled, place in ((wrong_value, 0), (wrong_gradient, 1)):
        monkeypatch.setattr(head_tiles, "cross_entropy", spoiled)
        found = compare(tiny("head_loss"), CPU, 1, RATES)
        check = found["checks"]["without logits, PyTorch"]
        assert found["failed"] and check["state"] == "wrong" and check["errors"][place] > 5e-3
        assert {row["way"] for row in found["rows"]} == {"eager", "torch.compile"}
        assert "without logits, PyTorch   FAILED: values and gradients are off by" in table(found)


def own_case(*ways, **changes):
    x = torch.ones(4)
    return Case(
        "test",
        "4",
        Candidate("exact", lambda: x.double()),
        tuple(ways),
        1e-3,
        torch.float32,
        **changes,
    )


@pytest.mark.parametrize(
    "value, state",
    [
        (lambda: torch.ones(4), "right"),
        (lambda: torch.full((4,), 1.01), "wrong"),
        (lambda: torch.ones(3), "wrong"),
        (lambda: torch.tensor([1, 1, 1, torch.nan]), "wrong"),
        (lambda: torch.ones(4) / 0, "wrong"),
    ],
)
def test_only_right_values_are_timed(value, state):
    found = compare(
        own_case(Candidate("good", lambda: torch.ones(4)), Candidate("tried", value, ours=True)),
        CPU,
        1,
        RATES,
    )
    assert found["checks"]["tried"]["state"] == state and found["failed"] == (state == "wrong")
    assert ("tried" in {row["way"] for row in found["rows"]}) == (state == "right")
    json.dumps(found, allow_nan=False)


def test_a_moving_result_is_wrong():
    drift = iter((torch.ones(4), torch.full((4,), 1.01)))
    found = compare(
        own_case(Candidate("good", lambda: torch.ones(4)), Candidate("race", lambda: next(drift))),
        CPU,
        1,
        RATES,
    )
    assert found["checks"]["race"]["state"] == "wrong"


@pytest.mark.parametrize("ours", [True, False])
def test_what_does_not_run_gives_its_reason_and_fails_only_if_it_is_ours(ours):
    def broken():
        raise RuntimeError("no such instruction\nand a long explanation")

    found = compare(
        own_case(Candidate("good", lambda: torch.ones(4)), Candidate("broken", broken, ours=ours)),
        CPU,
        1,
        RATES,
    )
    assert found["failed"] == ours
    assert (
        f"{'FAILED' if ours else 'cannot run here'}: RuntimeError: no such instruction\n"
        in table(found)
    )


def test_goals_and_shares_come_from_the_measured_times():
    """A way that sleeps is slower by what it sleeps; its goals say so."""

    def slow():
        time.sleep(0.02)
        return torch.ones(4)

    goals = (
        Goal(FORWARD, "speed", 2, "slow"),
        Goal(FORWARD, "speed", 1e9, "slow"),
        Goal(FORWARD, "copy", 1e-9),
        Goal(BOTH, "speed", 1, "slow"),
        Goal(FORWARD, "speed", 1, "absent"),
    )
    case = own_case(
        Candidate("slow", slow),
        Candidate("fast", lambda: torch.ones(4), ours=True),
        goals=goals,
        work={FORWARD: Work(bytes=1e6, flops=1e7)},
    )
    found = compare(case, CPU, 3, RATES)
    assert [goal["met"] for goal in found["goals"]] == [True, False, True, None, None]
    by_way = {row["way"]: row for row in found["rows"]}
    assert by_way["slow"]["copy_share"] == pytest.approx(1e6 / by_way["slow"]["median"] / 1e10)
    assert by_way["slow"]["product_share"] == pytest.approx(1e7 / by_way["slow"]["median"] / 1e11)
    assert 0.02 <= by_way["slow"]["min"] <= by_way["slow"]["median"] <= by_way["slow"]["max"] < 1
    assert "goal, forward: 1e+09 x slow: " in table(found) and ", not met" in table(found)


def test_functions_take_turns_and_phases_are_told_apart():
    order = []

    def first_phase(name, seconds):
        def call():
            order.append(name)
            time.sleep(seconds)

        return call

    functions = {
        "a": [first_phase("a", 0.03), wait(0.004)],
        "b": [first_phase("b", 0.06), wait(0.004)],
    }
    found = interleaved(functions, CPU, rounds=3, warmup=1)
    timed = order[2:]  # behind the warm-up
    turns = [name for name, before in zip(timed, [None, *timed]) if name != before]
    assert turns == ["a", "b"] * 3
    for name, seconds in (("a", 0.03), ("b", 0.06)):
        assert len(found[name]) == 3
        assert all(row[0] >= seconds and 0.004 <= row[1] < 0.03 for row in found[name])
    assert times_faster([4.0, 9.0, 2.0], [2.0, 3.0, 2.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_memory_is_the_peak_of_what_is_held_at_once():
    x, mib = torch.randn(256, 1024), 2**20  # 1 MiB
    for call, expected in (
        (lambda: [x * 2], 1),
        (lambda: [(x * 2).exp()], 2),
        (lambda: [x * 2, x * 3, x * 4], 3),
    ):
        assert expected * mib <= extra_bytes(call, CPU) < expected * mib + 1000
    inside = extra_bytes(
        lambda: [x.logsumexp(0)], CPU
    )  # what an operator needs for itself counts too
    assert inside >= mib
    assert result_bytes([x, x[0], x.mT, torch.zeros(5)]) == mib + 20


@pytest.mark.parametrize("rows, prototypes", [(512, 4096), (2048, 2048), (4096, 512)])
def test_without_logits_the_memory_grows_with_neither_rows_nor_prototypes(
    rows, prototypes, uncompiled, monkeypatch
):
    """But for some copies of features and prototypes, (rows + K) x D, beside the block: nothing has
    rows x K."""
    depth, block = 32, 1 << 16
    monkeypatch.setattr(head_tiles, "BLOCK", block)
    module = CASES["head_loss"]
    monkeypatch.setattr(module, "DEPTH", depth)
    case = module.case(module.Size(rows, prototypes), CPU)
    candidates = {candidate.name: candidate for candidate in case.candidates}

    def training_bytes(candidate):
        return extra_bytes(lambda: torch.autograd.grad(candidate.call(), candidate.leaves), CPU)

    eager = training_bytes(candidates["eager"])
    ours = training_bytes(candidates["without logits, PyTorch"])
    assert ours < 4 * (4 * block + 5 * (rows + prototypes) * depth) < 4 * rows * prototypes
    assert eager > 2 * 4 * rows * prototypes


def test_the_command_prints_writes_and_draws(tmp_path):
    done = skysense(
        "bench",
        "kernels",
        "--sizes",
        "tiny",
        "--rounds",
        1,
        "--only",
        "experts",
        "--json",
        tmp_path / "found.json",
        "--plot",
        tmp_path / "found.png",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert [case["case"] for case in found["cases"]] == ["experts"]
    assert found["rates"]["copy"] > 0 and found["rates"]["torch.float32"] > 0
    assert all(check["state"] == "right" for check in found["cases"][0]["checks"].values())
    assert (tmp_path / "found.png").stat().st_size > 10_000
    assert re.search(r"DeepSpeed +forward +[\d.]+ m?s", done.stdout)
    assert "the interpreter's time says nothing" in done.stdout


def test_a_failing_command_ends_with_1(uncompiled, monkeypatch, capsys):
    real = head_tiles.cross_entropy

    def wrong_value(*arguments, **options):
        values, gradient = real(*arguments, **options)
        return values + 1, gradient

    monkeypatch.setattr(head_tiles, "cross_entropy", wrong_value)
    monkeypatch.setattr(run, "ceilings", lambda device, seconds: RATES)
    words = ["bench", "kernels", "--sizes", "tiny", "--rounds", "1", "--only", "head_loss"]
    assert dispatch(words) == 1
    assert "FAILED: head loss, 24 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    "option, value",
    [
        ("--rounds", "0"),
        ("--threads", "0"),
        ("--plot", "picture.txt"),
        ("--json", "no/such/folder.json"),
    ],
)
def test_wrong_options_are_refused(option, value):
    with pytest.raises(ValueError, match=f"{option}.*: expected"):
        dispatch(["bench", "kernels", option, value])


def test_a_picture_shows_what_could_be_measured():
    """Also where one way has no rows."""
    case = own_case(
        Candidate("good", lambda: torch.ones(4)),
        Candidate("bad", lambda: torch.zeros(4), ours=True),
    )
    found = {
        "device": "none",
        "threads": 1,
        "rounds": 1,
        "rates": RATES,
        "cases": [compare(case, CPU, 1, RATES)],
    }
    speed, memory = picture(found).axes
    assert [label.get_text() for label in speed.get_yticklabels()] == ["good"] and len(
        memory.patches
    ) == 1
