"""What a rank sends in a step, by collective and link."""

import math
from dataclasses import dataclass

from engine.planning.cards import Card
from engine.planning.recorder import Collective

LINK = "inside a node"
NETWORK = "between nodes"
# Bytes that a rank sends over its slowest link, as a share of the tensor, for n ranks in a ring.
SENT = {
    "allreduce_": lambda n: 2 * (n - 1) / n,
    "reduce_": lambda n: (n - 1) / n,
    "_allgather_base_": lambda n: (n - 1) / n,
    "_reduce_scatter_base_": lambda n: (n - 1) / n,
    "alltoall_base_": lambda n: (n - 1) / n,
    "broadcast_": lambda n: 1.0,
}
RING = ("reduce_", "_allgather_base_", "_reduce_scatter_base_", "broadcast_")


@dataclass
class Traffic:
    """The exchanges of one kind in a part of the step."""

    part: str
    collective: str
    link: str
    ranks: int
    calls: int = 0
    size: int = 0  # bytes of the tensors that are exchanged
    sent: float = 0.0  # bytes that a rank sends
    link_hops: float = 0.0  # from rank to rank inside a node, one after the other, of all calls
    network_hops: float = 0.0  # the same between nodes


def traffic_of(collectives: list[Collective], card: Card) -> list[Traffic]:
    """Sum up the exchanges of a step. Those of a single rank are none.

    Raises:
        KeyError: A collective of a kind that nobody has counted yet.
    """
    kinds: dict[tuple[str, str, str, int], Traffic] = {}
    for collective in collectives:
        ranks = len(collective.ranks)
        if ranks == 1:
            continue
        nodes = {rank // card.node for rank in collective.ranks}
        link = NETWORK if len(nodes) > 1 else LINK
        key = (collective.part, collective.name, link, ranks)
        traffic = kinds.setdefault(key, Traffic(*key))
        traffic.calls += 1
        traffic.size += collective.size
        traffic.sent += SENT[collective.name](ranks) * collective.size
        link_hops, network_hops = _hops(collective.name, ranks, len(nodes))
        traffic.link_hops += link_hops
        traffic.network_hops += network_hops
    return list(kinds.values())


def _hops(name: str, ranks: int, nodes: int) -> tuple[float, float]:
    """How often data is passed on before an exchange is done: inside nodes and between them.

    In a ring from rank to rank. Sums for all go up a tree and down again, as NCCL chooses for small
    ones, whose hops matter. In an exchange of all with all, each rank sends to each at once.
    """
    if name in RING:
        between = nodes - 1
        return ranks - 1 - between, between
    if name == "allreduce_":
        return 2 * math.log2(ranks / nodes), 2 * math.log2(nodes)
    return 1, int(nodes > 1)
