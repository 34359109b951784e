"""Whether all ranks still have the same of what they must have alike.

Ranks start equal and make the same updates. A bit that flips in the memory of one of them would
spread through gradients or prototypes to all, and into the checkpoints, without a word. So each
tensor gets a checksum now and then: the sum of its elements' bits, read as integers. Sums of parts
add up, so the float32 shards, which lie on many ranks, say what the checksum of every weight must
be: one sum over the ranks, of one number a weight. That also tells who is wrong.
"""

import json
import platform
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from data.hashing import hash_64
from engine.distributed import zero, zero_state
from engine.distributed.collectives import collect
from engine.distributed.pieces import Piece
from engine.distributed.teacher import EmaTeacher
from engine.errors import ReplicaError
from models.moe.layer import canonical_names

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # by bytes
_SOUND = "its memory or device may be faulty; the last checkpoint is sound"
_UNKNOWN = "one of the two is wrong; the last checkpoint is sound"


def checksum(x: Tensor) -> Tensor:
    """() int64: the sum of the elements' bits, each element read as an integer."""
    return _bits(x).sum(dtype=torch.int64)


def _bits(x: Tensor) -> Tensor:
    """The elements (n,), read as integers."""
    return x.detach().flatten().view(_INTEGERS[x.element_size()])


@dataclass(frozen=True)
class RankChecksums:
    """What one rank found.

    Attributes:
        host: of the rank.
        copies: weights of its network that are not what the shards of all ranks say.
        shards: weights of which its float32 shard says something else than its network.
        shared: checksum of everything else that all ranks have alike, by name.
    """

    host: str
    copies: list[str] = field(default_factory=list)
    shards: list[str] = field(default_factory=list)
    shared: dict[str, int] = field(default_factory=dict)


class _Weights:
    """The weights of student or teacher: the network's, and the float32 shards behind them."""

    def __init__(self, title: str, engine: zero.DeepSpeedEngine, module: nn.Module):
        """Begin with the layout of the shards.

        Args:
            title: Of the model, for messages.
            engine: The student's engine.
            module: The network of student or teacher.
        """
        self.title = title
        self.layout = zero_state.layout(engine)
        names = canonical_names(engine.module)  # the teacher's module does not know them
        self.parameters = {names[name]: value for name, value in module.named_parameters()}

    def pieces(self, shards: Sequence[Tensor]) -> Iterator[tuple[Piece, Tensor]]:
        """Each piece of this rank's shards with its elements, in the network's type."""
        for shard, pieces in zip(shards, self.layout, strict=True):
            for piece in pieces:
                part = shard[piece.offset : piece.offset + piece.size]
                yield piece, part.to(self.parameters[piece.name].dtype)

    def piece_names(self) -> list[str]:
        """Weights of which this rank has a shard."""
        return [piece.name for piece in chain.from_iterable(self.layout)]

    def changed_shards(self, shards: Sequence[Tensor]) -> list[str]:
        """Weights of which this rank's shard and its network say different things."""
        changed = []
        for piece, part in self.pieces(shards):
            weight = self.parameters[piece.name].flatten()[piece.first : piece.first + piece.size]
            if not torch.equal(_bits(part), _bits(weight)):
                changed.append(f"{self.title}'s {piece.name}")
        return changed


class Replicas:
    """Compares the ranks of a run. Every rank must make the same calls."""

    def __init__(self, teacher: EmaTeacher):
        """Nothing is exchanged yet.

        Args:
            teacher: The teacher, with the student's engine.
        """
        self.teacher = teacher
        self.engine = teacher.engine
        self._weights: list[_Weights] = []
        self._places: dict[str, int] = {}  # of every weight that any rank trains

    def compare(self, shared: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Check that the ranks are equal. To be called between two updates.

        Args:
            shared: Tensors by name that all ranks must have alike, beside the weights.
            values: JSON values by name that all ranks must have alike.

        Raises:
            ReplicaError: Something differs; raised on all ranks, with the same rank in it.
        """
        self.teacher.wait()
        self._prepare()
        wrong = self._wrong_copies()
        own = [checksum(x) for x in self._all_shared(shared).values()]
        text = json.dumps(values, sort_keys=True)
        own.append(torch.tensor(hash_64(text) >> 1, device=wrong.device))
        own.append(wrong.sum())
        mine = torch.stack(own)
        every = mine.new_empty((zero.ranks().world_size, len(mine)))
        dist.all_gather_into_tensor(every, mine[None])
        is_equal = (every == mine).all() & (every[:, -1] == 0).all()
        # Not each rank for itself: with three different ones none would know that it is wrong.
        if not bool(is_equal):
            raise disagreement(collect(lambda: self._found(wrong, shared, values)))

    def _prepare(self) -> None:
        """Give every weight of the whole model a place, once."""
        if self._weights:
            return
        student = _Weights("the student", self.engine, self.engine.module)
        names: dict[str, None] = {}
        for of_rank in collect(student.piece_names):
            names |= dict.fromkeys(of_rank)
        self._places = {name: place for place, name in enumerate(names)}
        teacher = _Weights("the teacher", self.engine, self.teacher.module)
        self._weights = [student, teacher]

    def _shards(self) -> list[list[Tensor]]:
        """The shards of student and teacher."""
        return [zero.partitions(self.engine), self.teacher.shards]

    def _wrong_copies(self) -> Tensor:
        """(2 weights of the whole model) bool: those of this rank's networks that are wrong."""
        device = self._shards()[0][0].device
        expected = torch.zeros(2, len(self._places), dtype=torch.int64, device=device)
        found = torch.zeros_like(expected)
        held = torch.zeros_like(expected, dtype=torch.bool)
        for row, (weights, shards) in enumerate(zip(self._weights, self._shards(), strict=True)):
            for piece, part in weights.pieces(shards):
                expected[row, self._places[piece.name]] += checksum(part)
            for name, value in weights.parameters.items():
                place = self._places.get(name)
                if place is not None:
                    found[row, place] = checksum(value)
                    held[row, place] = True
        dist.all_reduce(expected)
        return ((expected != found) & held).flatten()

    def _all_shared(self, shared: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What the caller names, and the weights that nobody trains."""
        tensors = dict(shared)
        for weights in self._weights:
            for name, value in weights.parameters.items():
                if name not in self._places:
                    tensors[f"{weights.title}'s {name}"] = value
        return tensors

    def _found(
        self, wrong: Tensor, shared: Mapping[str, Tensor], values: Mapping[str, Any]
    ) -> RankChecksums:
        """What this rank can say, once it is known that something differs."""
        titles = []
        for weights in self._weights:
            titles += [f"{weights.title}'s {name}" for name in self._places]
        copies = [titles[place] for place in wrong.nonzero().flatten().tolist()]
        changed = []
        for weights, shards in zip(self._weights, self._shards(), strict=True):
            changed += weights.changed_shards(shards)
        numbers = {name: int(checksum(x)) for name, x in self._all_shared(shared).items()}
        for name, value in values.items():
            numbers[name] = hash_64(json.dumps(value, sort_keys=True))
        return RankChecksums(platform.node(), copies, changed, numbers)


def disagreement(ranks: Sequence[RankChecksums]) -> ReplicaError:
    """The error that names one rank and what it has differently.

    Args:
        ranks: Of every rank, in rank order. They differ in something.
    """
    wrong = [rank for rank, found in enumerate(ranks) if found.copies]
    if wrong:
        return _wrong_weight(ranks, wrong)
    return _wrong_shared(ranks)


def _wrong_weight(ranks: Sequence[RankChecksums], wrong: Sequence[int]) -> ReplicaError:
    """One rank's network is wrong; or a shard has changed, and then all networks seem so."""
    name = ranks[wrong[0]].copies[0]
    guilty = wrong[0]
    line = f"{name} is not what all ranks had after the last update"
    holders = [rank for rank in wrong if name in ranks[rank].shards]
    if len(wrong) > 1 and holders:
        guilty = holders[0]
        line = f"its float32 shard of {name} has changed since the last update"
    more = len(ranks[guilty].copies) - 1
    if more:
        line += f", nor are {more} other weights"
    return ReplicaError(f"{line}; {_SOUND}", guilty, ranks[guilty].host, is_certain=True)


def _wrong_shared(ranks: Sequence[RankChecksums]) -> ReplicaError:
    """A tensor or value that each rank computes for itself; the majority is right."""
    for name in ranks[0].shared:
        values = [found.shared.get(name) for found in ranks]
        usual, holders = Counter(values).most_common(1)[0]
        if holders == len(ranks):
            continue
        if 2 * holders > len(ranks):
            [guilty, *_] = [rank for rank, value in enumerate(values) if value != usual]
            line = f"{name} is not what most ranks have; {_SOUND}"
            return ReplicaError(line, guilty, ranks[guilty].host, is_certain=True)
        [other, *_] = [rank for rank, value in enumerate(values) if value != values[0]]
        line = f"{name} is not what rank 0 on {ranks[0].host} has; {_UNKNOWN}"
        return ReplicaError(line, other, ranks[other].host, is_certain=False)
    raise ValueError("disagreement: expected ranks that differ, found equal ones")
