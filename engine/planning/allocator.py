"""What torch's caching allocator reserves on a GPU for a series of allocations.

The rules are those of ``CUDACachingAllocator.cpp`` of torch 2.11 with its default settings. A
request is rounded up and takes the smallest free block that is large enough. What is left of the
block is split off. Otherwise a new segment is reserved. Free neighbours inside a segment are
merged. Segments are kept until the end, so what is reserved never falls: that is the memory that a
card must have. Small and large blocks, and those of different streams, are kept apart.
"""

import bisect
from dataclasses import dataclass

MIB = 2**20
UNIT = 512  # bytes; sizes of blocks are multiples of it
SMALL = MIB  # largest request that comes from the small blocks
SMALL_SEGMENT = 2 * MIB
LARGE_SEGMENT = 20 * MIB  # of requests below LARGE
LARGE = 10 * MIB
LARGE_UNIT = 2 * MIB  # of segments for a single request


@dataclass(eq=False)
class Block:
    """A part of a segment."""

    pool: "_Pool"
    address: int
    size: int  # bytes
    before: "Block | None" = None  # its neighbours in the segment
    after: "Block | None" = None
    is_free: bool = False


class _Pool:
    """The free blocks of one stream that are small, or large."""

    def __init__(self, *, small: bool):
        self.small = small
        self.free: list[tuple[int, int]] = []  # size and address, ascending
        self.blocks: dict[int, Block] = {}  # by address

    def put(self, block: Block) -> None:
        """Add a free block."""
        block.is_free = True
        bisect.insort(self.free, (block.size, block.address))
        self.blocks[block.address] = block

    def remove(self, block: Block) -> None:
        """Take out a block that is about to be used or merged."""
        block.is_free = False
        place = bisect.bisect_left(self.free, (block.size, block.address))
        del self.free[place]
        del self.blocks[block.address]

    def take(self, size: int) -> Block | None:
        """The smallest free block of at least ``size`` bytes, or None."""
        place = bisect.bisect_left(self.free, (size, 0))
        if place == len(self.free):
            return None
        block = self.blocks[self.free[place][1]]
        self.remove(block)
        return block


class Allocator:
    """The allocator's state. All sizes are in bytes."""

    def __init__(self):
        self.allocated = 0
        self.reserved = 0
        self._pools: dict[tuple[int, bool], _Pool] = {}  # by stream and whether blocks are small
        self._end = 0  # of the last segment

    def allocate(self, size: int, *, stream: int = 0) -> Block:
        """Give a block of at least ``size`` bytes on a stream."""
        size = max(1, -(-size // UNIT)) * UNIT
        small = size <= SMALL
        pool = self._pools.setdefault((stream, small), _Pool(small=small))
        block = pool.take(size) or self._segment(pool, size)
        self._split(block, size)
        self.allocated += block.size
        return block

    def free(self, block: Block) -> None:
        """Take a block back and merge it with its free neighbours."""
        self.allocated -= block.size
        pool = block.pool
        if block.after is not None and block.after.is_free:
            pool.remove(block.after)
            _merge(block, block.after)
        if block.before is not None and block.before.is_free:
            block = block.before
            pool.remove(block)
            assert block.after is not None
            _merge(block, block.after)
        pool.put(block)

    def trim(self) -> None:
        """Give back the segments that are wholly free, as ``torch.cuda.empty_cache`` does."""
        for pool in self._pools.values():
            for block in list(pool.blocks.values()):
                if block.before is None and block.after is None:
                    pool.remove(block)
                    self.reserved -= block.size

    def _segment(self, pool: _Pool, size: int) -> Block:
        """Reserve a segment for a request."""
        if pool.small:
            length = SMALL_SEGMENT
        elif size < LARGE:
            length = LARGE_SEGMENT
        else:
            length = -(-size // LARGE_UNIT) * LARGE_UNIT
        block = Block(pool, self._end, length)
        self._end += length
        self.reserved += length
        return block

    def _split(self, block: Block, size: int) -> None:
        """Cut a block down to ``size`` bytes, if what is left is worth keeping."""
        rest = block.size - size
        least = UNIT if block.pool.small else SMALL + 1
        if rest < least:
            return
        other = Block(block.pool, block.address + size, rest, before=block, after=block.after)
        if block.after is not None:
            block.after.before = other
        block.after = other
        block.size = size
        block.pool.put(other)


def _merge(block: Block, after: Block) -> None:
    """Append a block's right neighbour, which is in no pool any more."""
    block.size += after.size
    block.after = after.after
    if after.after is not None:
        after.after.before = block
