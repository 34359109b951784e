"""The four families of float32 vectors in a checkpoint, and how their elements find a new place.

A family is a folder: the master weights, Adam's two moments, and the teacher's average. Each rank
of the run that saved it left a file there, with a tensor for each parameter group and, in the
header, the pieces that lie in them. So a checkpoint says itself where every element of every
parameter lies, and a run with other ranks, groups or ``ep_size`` reads just the ranges it needs.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import safe_open
from torch import Tensor

from data.errors import InputError
from engine.checkpoint.tensor_file import write_tensors
from engine.distributed.pieces import Layout, Piece

_LAYOUT = "layout"  # in a file's header, as JSON


class Move(NamedTuple):
    """Elements that go from a shard in a file into a shard in memory."""

    rank: int  # whose file
    source: int  # group in the file
    begin: int  # first element in the file's shard
    size: int
    target: int  # group in memory
    place: int  # first element in the shard in memory


def family_file(folder: Path, family: str, rank: int) -> Path:
    """The file of a rank's shards of a family."""
    return folder / family / f"rank-{rank:05d}.safetensors"


def write_shards(file: Path, shards: list[Tensor], layout: Layout) -> dict:
    """Write a rank's shards of one family. Results and errors are those of ``write_tensors``."""
    tensors = {_group_name(group): shard for group, shard in enumerate(shards)}
    return write_tensors(file, tensors, {_LAYOUT: json.dumps(layout)})


def _group_name(group: int) -> str:
    return f"group.{group:05d}"


def read_layout(folder: Path, family: str, rank: int) -> Layout:
    """The layout in the header of a rank's file."""
    with safe_open(family_file(folder, family, rank), "pt") as file:
        groups = json.loads(file.metadata()[_LAYOUT])
    return [[Piece(*piece) for piece in group] for group in groups]


def count_files(folder: Path, family: str) -> int:
    """Number of ranks that left a file of a family."""
    return len(list((folder / family).glob("rank-*.safetensors")))


def count_elements(layouts: Iterable[Layout]) -> int:
    """Elements of all parameters in some ranks' shards of a family."""
    groups = chain.from_iterable(layouts)
    return sum(piece.size for piece in chain.from_iterable(groups))


class Place(NamedTuple):
    """Where a piece lies on the disk."""

    rank: int
    group: int
    piece: Piece


Places = dict[str, list[Place]]  # of all pieces of each parameter


def find_places(layouts: Iterable[Layout]) -> Places:
    """Where everything lies in the files of a family, given the layouts of all ranks."""
    places: Places = {}
    for rank, layout in enumerate(layouts):
        for index, group in enumerate(layout):
            for piece in group:
                places.setdefault(piece.name, []).append(Place(rank, index, piece))
    return places


def plan(places: Places, wanted: Layout, folder: Path) -> list[Move]:
    """What to read so that a rank's shards hold what ``wanted`` says, file after file.

    Args:
        places: Where everything lies in the files.
        wanted: The layout in memory.
        folder: The checkpoint, for messages.

    Raises:
        InputError: A parameter is not there as a whole, or has another shape.
    """
    moves = []
    for target, group in enumerate(wanted):
        for piece in group:
            found = _moves(places.get(piece.name, []), piece, target)
            if sum(move.size for move in found) != piece.size:
                raise InputError(
                    f"{folder}: expected {piece.name} of shape {piece.shape}, found "
                    f"{_describe(places.get(piece.name))}; the checkpoint is of another model"
                )
            moves += found
    return sorted(moves)


def _moves(places: list[Place], wanted: Piece, target: int) -> list[Move]:
    """The parts of a wanted piece that lie at these places."""
    moves = []
    for place in places:
        saved = place.piece
        first = max(saved.first, wanted.first)
        end = min(saved.first + saved.size, wanted.first + wanted.size)
        if first < end and saved.shape == wanted.shape:
            move = Move(
                rank=place.rank,
                source=place.group,
                begin=saved.offset + first - saved.first,
                size=end - first,
                target=target,
                place=wanted.offset + first - wanted.first,
            )
            moves.append(move)
    return moves


def _describe(places: list[Place] | None) -> str:
    """What is there of a parameter."""
    if not places:
        return "none of that name"
    elements = sum(place.piece.size for place in places)
    return f"{elements} elements of shape {places[0].piece.shape}"


@torch.no_grad()
def read_shards(folder: Path, family: str, moves: list[Move], shards: list[Tensor]) -> None:
    """Read a family into the shards of this rank; each element once.

    Args:
        folder: The checkpoint.
        family: One of FAMILIES.
        moves: Of ``plan``.
        shards: A flat vector for each group, on any device.
    """
    by_rank: dict[int, list[Move]] = {}
    for move in moves:
        by_rank.setdefault(move.rank, []).append(move)
    for rank, of_rank in by_rank.items():
        with safe_open(family_file(folder, family, rank), "pt") as file:
            for move in of_rank:
                saved = file.get_slice(_group_name(move.source))
                part = saved[move.begin : move.begin + move.size]
                shards[move.target][move.place : move.place + move.size].copy_(part)


class StoredWeights(Mapping[str, Tensor]):
    """The whole parameters of a family, by name; each is read when it is asked for."""

    def __init__(self, folder: Path, family: str, beside: Mapping[str, Tensor] | None = None):
        """Read the headers of a checkpoint's files.

        Args:
            folder: The checkpoint.
            family: One of FAMILIES.
            beside: Tensors that belong to the parameters, such as buffers, by name.
        """
        ranks = range(count_files(folder, family))
        self._folder = folder
        self._family = family
        self._beside = dict(beside or {})
        self._places = find_places(read_layout(folder, family, rank) for rank in ranks)

    def __getitem__(self, name: str) -> Tensor:
        """Read a tensor.

        Raises:
            InputError: A part of it is missing.
        """
        if name in self._beside:
            return self._beside[name]
        shape = self._shape(name)
        flat = torch.empty(math.prod(shape))
        wanted = [[Piece(name, shape, first=0, size=len(flat), offset=0)]]
        moves = plan(self._places, wanted, self._folder)
        read_shards(self._folder, self._family, moves, [flat])
        return flat.view(shape)

    def _shape(self, name: str) -> list[int]:
        return self._places[name][0].piece.shape

    def __iter__(self) -> Iterator[str]:
        """The names."""
        yield from self._places
        yield from self._beside

    def __len__(self) -> int:
        """Number of tensors."""
        return len(self._places) + len(self._beside)

    def outline(self) -> dict[str, Tensor]:
        """Tensors of the same names, shapes and types; values of parameters are on no device."""
        shapes = {name: self._shape(name) for name in self._places}
        parameters = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        return parameters | self._beside
