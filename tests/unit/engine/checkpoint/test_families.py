"""Flat vectors that are cut anew, by hundreds of random layouts; what is incomplete is refused."""

import math
import random

import pytest
import torch

from data.errors import InputError
from engine.checkpoint.families import (
    StoredWeights,
    count_elements,
    count_files,
    family_file,
    find_places,
    plan,
    read_layout,
    read_shards,
    write_shards,
)
from engine.distributed.pieces import EMA, Piece

SHAPES = {"a.weight": [5, 7], "a.bias": [7], "token": [], "expert.3": [2, 3, 4], "b": [31]}


def weights():
    """Whole parameters, each element another number."""
    numbers = torch.arange(1.0, 1000.0)
    parameters = {}
    for name, shape in SHAPES.items():
        size = math.prod(shape)
        parameters[name] = numbers[:size].view(shape)
        numbers = numbers[size:]
    return parameters


def cut(chance, world):
    """Layouts of ``world`` ranks: parameters in random order in random groups, each group cut into
    equal parts with padding at the end."""
    names = list(SHAPES)
    chance.shuffle(names)
    layouts = [[] for _ in range(world)]
    sizes = []
    while names:
        group = [names.pop() for _ in range(min(len(names), chance.randint(1, 4)))]
        total = sum(math.prod(SHAPES[name]) for name in group)
        part = -(-total // world) + chance.randint(0, 2)
        sizes.append(part)
        for rank, layout in enumerate(layouts):
            layout.append(pieces(group, rank * part, (rank + 1) * part))
    return layouts, sizes


def pieces(names, begin, end):
    """What lies between two places of the flat vector of some parameters."""
    found = []
    place = 0
    for name in names:
        size = math.prod(SHAPES[name])
        inside = [e for e in range(size) if begin <= place + e < end]
        if inside:
            piece = Piece(name, SHAPES[name], inside[0], len(inside), place + inside[0] - begin)
            found.append(piece)
        place += size
    return found


def shards_of(layout, sizes, parameters):
    """The shards of a rank; the padding is zero."""
    shards = [torch.zeros(size) for size in sizes]
    for shard, group in zip(shards, layout, strict=True):
        for piece in group:
            flat = parameters[piece.name].flatten()
            part = flat[piece.first : piece.first + piece.size]
            shard[piece.offset : piece.offset + piece.size] = part
    return shards


def write(folder, layouts, sizes, parameters):
    """The files of all ranks."""
    (folder / EMA).mkdir(parents=True)
    for rank, layout in enumerate(layouts):
        shards = shards_of(layout, sizes, parameters)
        write_shards(family_file(folder, EMA, rank), shards, layout)


@pytest.mark.parametrize("seed", range(60))
def test_every_element_finds_its_new_place(tmp_path, seed):
    chance = random.Random(seed)
    parameters = weights()
    layouts, sizes = cut(chance, chance.randint(1, 5))
    write(tmp_path, layouts, sizes, parameters)
    saved = [read_layout(tmp_path, EMA, rank) for rank in range(count_files(tmp_path, EMA))]
    assert saved == layouts
    assert count_elements(saved) == sum(math.prod(shape) for shape in SHAPES.values())

    others, other_sizes = cut(chance, chance.randint(1, 5))
    read = 0
    for layout in others:
        moves = plan(find_places(saved), layout, tmp_path)
        read += sum(move.size for move in moves)
        shards = [torch.zeros(size) for size in other_sizes]
        read_shards(tmp_path, EMA, moves, shards)
        for shard, expected in zip(shards, shards_of(layout, other_sizes, parameters), strict=True):
            assert torch.equal(shard, expected)
    assert read == count_elements(saved)  # each element once

    whole = StoredWeights(tmp_path, EMA)
    assert whole.keys() == parameters.keys() == whole.outline().keys()
    assert all(torch.equal(tensor, parameters[name]) for name, tensor in whole.items())


def test_what_is_not_there_as_a_whole_is_refused(tmp_path):
    layouts, sizes = cut(random.Random(0), 3)
    write(tmp_path, layouts, sizes, weights())
    wanted = [[Piece("b", [31], first=0, size=31, offset=0)]]
    with pytest.raises(
        InputError, match=r"expected b of shape \[31\], found \d+ elements of shape"
    ):
        plan(find_places(layouts[:1]), wanted, tmp_path)
    family_file(tmp_path, EMA, 2).unlink()
    with pytest.raises(InputError, match="elements of shape"):
        dict(StoredWeights(tmp_path, EMA))
    wanted = [[Piece("c", [3], first=0, size=3, offset=0)]]
    with pytest.raises(InputError, match=r"expected c of shape \[3\], found none of that name"):
        plan(find_places(layouts), wanted, tmp_path)
