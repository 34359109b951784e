"""What a rank's card holds, by item and by moment of the step."""

from collections import Counter
from dataclasses import dataclass, field

from engine.planning.allocator import MIB, Allocator, Block
from engine.planning.recorder import Allocation, Begin
from engine.planning.rehearsal import READY, SAVED, Rehearsal
from models.kernels.gpu import Gpu

SLACK = "allocator's slack"
SET_UP = "set-up"
# What a storage is that nobody has named, by the part of the step that made it.
ITEMS = {
    "inputs": "batch",
    "student": "activations of the student",
    "teacher": "activations of the teacher",
    "losses": "heads and losses",
    "backward": "gradients and backward pass",
    "optimizer": "optimizer",
}
EXCHANGE = "exchange of gradients"  # of everything on another stream than the first
OTHER = "others"
PRODUCTS = "workspaces of cuBLAS"
WORKSPACES = 2  # of cuBLAS and cuBLASLt
WORKSPACE = 32 * MIB  # each, from compute capability 9 on (aten/src/ATen/cuda/CublasHandlePool.cpp)
SMALL_WORKSPACE = 8320 * 1024  # before it


@dataclass
class Moment:
    """The fullest instant of a part of the step. All sizes are in bytes."""

    part: str
    allocated: int = 0
    reserved: int = 0  # at the end of the part
    items: dict[str, int] = field(default_factory=dict)  # what was asked for


@dataclass(frozen=True)
class Memory:
    """A rank's memory over the set-up and a step."""

    moments: list[Moment]

    @property
    def fullest(self) -> Moment:
        """The moment with the most memory allocated."""
        return max(self.moments, key=lambda moment: moment.allocated)

    @property
    def allocated(self) -> int:
        """Most bytes in use at once."""
        return self.fullest.allocated

    @property
    def reserved(self) -> int:
        """Most bytes that torch's allocator takes from the card."""
        return max(moment.reserved for moment in self.moments)

    @property
    def saved(self) -> int:
        """Bytes that the host holds while a checkpoint is written behind the steps."""
        return sum(self.fullest.items[item] for item in SAVED)

    def items(self) -> dict[str, int]:
        """What the card holds at the fullest moment, the allocator's slack last."""
        items = dict(self.fullest.items)
        items[SLACK] = self.reserved - sum(items.values())
        return items


def memory_of(rehearsal: Rehearsal, gpu: Gpu) -> Memory:
    """Replay a rehearsal's allocations on a GPU.

    Between the set-up and the first step the allocator is trimmed: the weights of a run come from
    the host, which leaves fewer holes than those that the rehearsal makes on its device.
    """
    workspace = SMALL_WORKSPACE
    if gpu.capability >= 9:
        workspace = WORKSPACE
    allocator = Allocator()
    held: Counter[str] = Counter()
    blocks: dict[int, Block] = {}
    living: dict[int, Allocation] = {}
    moments = {SET_UP: Moment(SET_UP)}
    moment = moments[SET_UP]
    for event in rehearsal.events:
        if isinstance(event, Begin):
            if event.part == READY and len(moments) == 1:
                allocator.trim()
                for _ in range(WORKSPACES):
                    allocator.allocate(workspace)
                    held[PRODUCTS] += workspace
            moment = moments.setdefault(event.part, Moment(event.part))
        elif isinstance(event, Allocation):
            blocks[event.storage] = allocator.allocate(event.size, stream=event.stream)
            living[event.storage] = event
            held[_item(rehearsal, event)] += event.size
            if allocator.allocated > moment.allocated:
                moment.allocated = allocator.allocated
                moment.items = {item: size for item, size in held.items() if size}
        else:
            allocation = living.pop(event.storage)
            held[_item(rehearsal, allocation)] -= allocation.size
            allocator.free(blocks.pop(event.storage))
        moment.reserved = max(moment.reserved, allocator.reserved)
    return Memory([moment for moment in moments.values() if moment.part != READY])


def _item(rehearsal: Rehearsal, event: Allocation) -> str:
    """What a storage holds."""
    if event.storage in rehearsal.items:
        return rehearsal.items[event.storage]
    if event.stream != 0:
        return EXCHANGE
    return ITEMS.get(event.part, OTHER)
