"""What a rank sends in a step, by collective and link."""

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
    return list(kinds.values())
