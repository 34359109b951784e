"""The order of samples: a property of seed, dataset and step, and of nothing else."""

import hashlib
import os
import pickle
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from data.errors import InputError
from data.seeded import generator
from data.stream.order import Order, Part

WORLDS = (1, 2, 4, 8, 128)


@pytest.mark.parametrize("count,batch", [(37, 8), (5, 16), (1, 4), (64, 64), (7, 7), (1000, 256)])
def test_each_epoch_holds_every_sample_once(count, batch):
    order = Order(3, [Part(count, "abc")], batch_size=batch)
    steps = -(-5 * count // batch)
    drawn = [slot for k in range(steps) for slot in order.step(k)]
    assert len(drawn) == steps * batch
    for epoch in range(5):
        part = drawn[epoch * count : (epoch + 1) * count]
        assert sorted(index for index, _ in part) == list(range(count))
        assert {use for _, use in part} == {epoch}


def test_a_small_dataset_gives_distinct_uses_in_one_batch():
    batch = Order(0, [Part(3, "f")], batch_size=16).step(2)
    assert len(set(batch)) == 16 and len({index for index, _ in batch}) == 3


def run(parts, batch, world, start, stop):
    """What all ranks of a run draw in its steps; every rank has an order of its own, as every
    process has."""
    ranks = [Order(1, parts, batch_size=batch) for _ in range(world)]
    drawn = []
    for k in range(start, stop):
        for rank, order in enumerate(ranks):
            drawn += order.slice(k, rank=rank, world_size=world)
    return drawn


MIXED = [Part(1000, "a", 3.0), Part(57, "b", 1.0), Part(411, "c", 0.7)]


@pytest.mark.parametrize("parts", [[Part(500, "f")], MIXED], ids=["one", "mixture"])
@pytest.mark.parametrize("world", WORLDS)
def test_the_list_is_the_same_for_any_world_and_across_restarts(world, parts):
    whole = run(parts, 128, 1, 0, 12)
    assert run(parts, 128, world, 0, 12) == whole
    assert run(parts, 128, world, 0, 5) + run(parts, 128, world, 5, 12) == whole


@pytest.mark.parametrize("parts", [[Part(500, "f")], MIXED], ids=["one", "mixture"])
def test_a_run_goes_on_with_other_ranks(parts):
    whole = run(parts, 128, 1, 0, 12)
    assert run(parts, 128, 4, 0, 7) + run(parts, 128, 2, 7, 12) == whole


def test_no_sample_of_a_mixture_comes_twice_in_its_epoch():
    drawn = run(MIXED, 128, 4, 0, 60)
    for first, stop in pairwise((0, 1000, 1057, 1468)):
        own = [slot for slot in drawn if first <= slot[0] < stop]
        assert len(set(own)) == len(own)  # a sample in a use
        for epoch in range(len(own) // (stop - first)):
            assert {slot for slot in own if slot[1] == epoch} == {
                (sample, epoch) for sample in range(first, stop)
            }


def test_a_mixture_keeps_its_weights_in_every_cycle_and_each_dataset_its_own_order():
    drawn = run(MIXED, 128, 1, 0, 8 * 6)
    for cycle in range(6):
        counts = np.histogram(
            [s for s, _ in drawn[1024 * cycle : 1024 * (cycle + 1)]], (0, 1000, 1057, 1468)
        )[0]
        np.testing.assert_allclose(counts, 1024 * np.array([3.0, 1.0, 0.7]) / 4.7, atol=1)
    alone = run([Part(411, "c")], 128, 1, 0, 8)
    mixed = [(sample - 1057, use) for sample, use in drawn if sample >= 1057]
    assert mixed[: len(alone)] == alone[: len(mixed)]
    cycles = [[sample for sample, _ in drawn[start : start + 1024]] for start in (0, 1024)]
    assert cycles[0] != cycles[1]


def test_random_access_equals_reading_on():
    one = Order(9, [Part(11, "f")], batch_size=4)
    two = Order(9, [Part(11, "f")], batch_size=4)
    forward = [one.step(k) for k in range(30)]
    assert [two.step(k) for k in reversed(range(30))] == forward[::-1]


def test_seed_fingerprint_and_epoch_change_the_order():
    base = [index for index, _ in Order(0, [Part(100, "f")], batch_size=100).step(0)]
    others = [
        Order(1, [Part(100, "f")], batch_size=100).step(0),
        Order(0, [Part(100, "g")], batch_size=100).step(0),
        Order(0, [Part(100, "f")], batch_size=100).step(1),
    ]
    for other in others:
        assert [index for index, _ in other] != base


def test_batch_size_only_cuts_the_same_list():
    small = Order(4, [Part(23, "f")], batch_size=3)
    large = Order(4, [Part(23, "f")], batch_size=12)
    drawn = []
    for k in range(8):
        drawn += small.step(k)
    assert drawn == large.step(0) + large.step(1)


@pytest.mark.parametrize("later", [2, 6, 10])
def test_a_change_of_the_batch_size_repeats_and_skips_nothing(later):
    """Seven steps of 6, then steps of another size."""
    first = Order(4, MIXED, batch_size=6)
    second = Order(4, MIXED, batch_size=later, origin=first.position(7) - 7 * later)
    drawn = []
    for k in range(7):
        drawn += first.step(k)
    for k in range(7, 22):
        drawn += second.step(k)
    whole = Order(4, MIXED, batch_size=42 + 15 * later).step(0)
    assert drawn == whole
    assert pickle.loads(pickle.dumps(second)).step(9) == second.step(9)


def test_every_sample_comes_first_equally_often():
    firsts = np.bincount(
        [Order(seed, [Part(5, "f")], batch_size=1).step(0)[0][0] for seed in range(2000)],
        minlength=5,
    )
    assert ((firsts - 400) ** 2 / 400).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001


def test_generator_is_philox_keyed_with_blake2b():
    key = int.from_bytes(hashlib.blake2b(b"(1, 'a', 2)", digest_size=16).digest(), "little")
    expected = np.random.Generator(np.random.Philox(key=key)).integers(1 << 60, size=4)
    assert (generator(1, "a", 2).integers(1 << 60, size=4) == expected).all()


def test_another_process_draws_the_same():
    code = """
from data.stream.order import Order, Part
print(Order(5, [Part(40, "f")], batch_size=16).step(3))
"""
    outputs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert outputs == {f"{Order(5, [Part(40, 'f')], batch_size=16).step(3)}\n"}


def test_survives_pickling():
    order = Order(5, [Part(40, "f")], batch_size=16)
    assert pickle.loads(pickle.dumps(order)).step(7) == order.step(7)


@pytest.mark.parametrize(
    "call",
    [
        lambda: Order(0, [], batch_size=4),
        lambda: Order(0, [Part(0, "f")], batch_size=4),
        lambda: Order(0, [Part(4, "f")], batch_size=0),
        lambda: Order(0, [Part(9, "f")], batch_size=6).slice(0, rank=0, world_size=4),
        lambda: Order(0, [Part(9, "f")], batch_size=6).slice(0, rank=2, world_size=2),
        lambda: Order(0, [Part(9, "f")], batch_size=6).step(-1),
        lambda: Order(0, [Part(9, "f", 0.0)], batch_size=6),
        lambda: Order(0, [Part(9, "f", 1.0), Part(9, "g", 1e-6)], batch_size=6),
    ],
)
def test_impossible_requests_are_refused(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
