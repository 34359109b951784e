"""Which weights lie where in a shard, whoever holds it: ZeRO or a file."""

from typing import NamedTuple

# The families of shards, which all have the same layout.
MASTER = "master"  # the student's float32 weights
MOMENTS = ("exp_avg", "exp_avg_sq")  # Adam's, by its own names
EMA = "ema"  # the teacher: the moving average of the student's weights
FAMILIES = (MASTER, *MOMENTS, EMA)


class Piece(NamedTuple):
    """Elements of one parameter that lie side by side in a shard.

    The elements of a parameter are counted row after row, as in memory.
    """

    name: str  # in the whole model; experts have their global number
    shape: list[int]  # of the whole parameter
    first: int  # the first of its elements that lies here
    size: int  # number of elements
    offset: int  # where that one lies in the shard, in elements


Layout = list[list[Piece]]  # of one rank: the pieces in the shard of each group
