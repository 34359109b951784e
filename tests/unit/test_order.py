"""The order of samples: a property of seed, dataset and step, and of nothing else."""

import hashlib
import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from data.errors import InputError
from data.order import Order, Part, generator

WORLDS = (1, 2, 4, 8, 128)


@pytest.mark.parametrize("count,batch", [(37, 8), (5, 16), (1, 4), (64, 64), (7, 7), (1000, 256)])
def test_each_epoch_holds_every_sample_once(count, batch):
    order = Order(3, [Part(count, "abc")], batch)
    steps = -(-5 * count // batch)
    drawn = [slot for k in range(steps) for slot in order.step(k)]
    assert len(drawn) == steps * batch
    for epoch in range(5):
        part = drawn[epoch * count:(epoch + 1) * count]
        assert sorted(index for index, _ in part) == list(range(count))
        assert {use for _, use in part} == {epoch}


def test_a_small_dataset_gives_distinct_uses_in_one_batch():
    batch = Order(0, [Part(3, "f")], 16).step(2)
    assert len(set(batch)) == 16 and len({index for index, _ in batch}) == 3


@pytest.mark.parametrize("world", WORLDS)
def test_ranks_joined_are_the_step(world):
    order = Order(1, [Part(50, "f")], 128)
    for k in (0, 1, 5):
        assert sum((order.slice(k, rank, world) for rank in range(world)), []) == order.step(k)


def test_random_access_equals_reading_on():
    one, two = Order(9, [Part(11, "f")], 4), Order(9, [Part(11, "f")], 4)
    forward = [one.step(k) for k in range(30)]
    assert [two.step(k) for k in reversed(range(30))] == forward[::-1]


def test_seed_fingerprint_and_epoch_change_the_order():
    base = [index for index, _ in Order(0, [Part(100, "f")], 100).step(0)]
    others = [Order(1, [Part(100, "f")], 100).step(0), Order(0, [Part(100, "g")], 100).step(0), Order(0, [Part(100, "f")], 100).step(1)]
    for other in others:
        assert [index for index, _ in other] != base


def test_batch_size_only_cuts_the_same_list():
    small, large = Order(4, [Part(23, "f")], 3), Order(4, [Part(23, "f")], 12)
    assert sum((small.step(k) for k in range(8)), []) == large.step(0) + large.step(1)


def test_every_sample_comes_first_equally_often():
    firsts = np.bincount([Order(seed, [Part(5, "f")], 1).step(0)[0][0] for seed in range(2000)], minlength=5)
    assert ((firsts - 400) ** 2 / 400).sum() < 18.5  # chi-square, 4 degrees of freedom, p = 0.001


def test_generator_is_philox_keyed_with_blake2b():
    key = int.from_bytes(hashlib.blake2b(b"(1, 'a', 2)", digest_size=16).digest(), "little")
    expected = np.random.Generator(np.random.Philox(key=key)).integers(1 << 60, size=4)
    assert (generator(1, "a", 2).integers(1 << 60, size=4) == expected).all()


def test_another_process_draws_the_same():
    code = "from data.order import Order, Part; print(Order(5, [Part(40, 'f')], 16).step(3))"
    outputs = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True,
                              env={**os.environ, "PYTHONPATH": os.getcwd(), "PYTHONHASHSEED": seed}).stdout
               for seed in ("1", "2")}
    assert outputs == {f"{Order(5, [Part(40, 'f')], 16).step(3)}\n"}


def test_survives_pickling():
    order = Order(5, [Part(40, "f")], 16)
    assert pickle.loads(pickle.dumps(order)).step(7) == order.step(7)


@pytest.mark.parametrize("call", [
    lambda: Order(0, [Part(0, "f")], 4), lambda: Order(0, [Part(4, "f")], 0), lambda: Order(0, [Part(9, "f")], 6).slice(0, 0, 4),
    lambda: Order(0, [Part(9, "f")], 6).slice(0, 2, 2), lambda: Order(0, [Part(9, "f")], 6).step(-1)])
def test_impossible_requests_are_refused(call):
    with pytest.raises(InputError) as error:
        call()
    assert "\n" not in str(error.value)
