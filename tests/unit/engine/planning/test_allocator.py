"""The allocator's rules, each on a series whose result follows from torch's source by hand."""

import random

import pytest

from engine.planning.allocator import MIB, Allocator


@pytest.mark.parametrize(
    "size, block, segment",
    [
        (1, 512, 2 * MIB),
        (513, 1024, 2 * MIB),
        (MIB, MIB, 2 * MIB),
        (MIB + 1, MIB + 512, 20 * MIB),
        (10 * MIB, 10 * MIB, 10 * MIB),
        (11 * MIB + 1, 12 * MIB, 12 * MIB),  # what is left is too small to be split off
    ],
)
def test_a_request_is_rounded_up(size, block, segment):
    allocator = Allocator()
    allocator.allocate(size)
    assert allocator.allocated == block
    assert allocator.reserved == segment


def test_the_smallest_free_block_is_taken_and_split():
    allocator = Allocator()
    large = allocator.allocate(100 * MIB)
    middle = allocator.allocate(40 * MIB)
    allocator.free(large)
    allocator.free(middle)
    allocator.allocate(30 * MIB)  # of the block of 40
    allocator.allocate(100 * MIB)
    assert allocator.reserved == 140 * MIB
    allocator.allocate(10 * MIB)  # what is left of the 40
    assert allocator.reserved == 140 * MIB


def test_free_neighbours_are_merged():
    allocator = Allocator()
    whole = allocator.allocate(60 * MIB)
    allocator.free(whole)
    parts = [allocator.allocate(20 * MIB) for _ in range(3)]
    for part in (parts[0], parts[2], parts[1]):
        allocator.free(part)
    allocator.allocate(60 * MIB)
    assert allocator.reserved == 60 * MIB


def test_holes_that_are_too_small_cost_a_new_segment():
    allocator = Allocator()
    allocator.free(allocator.allocate(60 * MIB))
    parts = [allocator.allocate(20 * MIB) for _ in range(3)]
    allocator.free(parts[0])
    allocator.free(parts[2])
    allocator.allocate(40 * MIB)  # 40 are free, but not side by side
    assert allocator.reserved == 100 * MIB


def test_streams_do_not_share_blocks():
    allocator = Allocator()
    allocator.free(allocator.allocate(50 * MIB))
    allocator.allocate(50 * MIB, stream=1)
    assert allocator.reserved == 100 * MIB


def test_trimming_gives_back_what_is_wholly_free():
    allocator = Allocator()
    kept = allocator.allocate(30 * MIB)
    allocator.free(allocator.allocate(50 * MIB))
    allocator.trim()
    assert allocator.reserved == 30 * MIB
    allocator.free(kept)
    allocator.trim()
    assert allocator.reserved == 0


def test_any_series_ends_with_whole_segments():
    draw = random.Random(0)
    allocator = Allocator()
    blocks = []
    for _ in range(3000):
        if blocks and draw.random() < 0.5:
            allocator.free(blocks.pop(draw.randrange(len(blocks))))
        else:
            size = int(2 ** draw.uniform(3, 28))
            blocks.append(allocator.allocate(size, stream=draw.randrange(2)))
        assert allocator.allocated == sum(block.size for block in blocks)
        assert allocator.allocated <= allocator.reserved
    for block in blocks:
        allocator.free(block)
    allocator.trim()
    assert allocator.reserved == allocator.allocated == 0
