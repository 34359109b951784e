"""What is sent, and how often it is passed on, by the arithmetic of rings and trees."""

import pytest

from engine.planning.cards import card_of
from engine.planning.communication import LINK, NETWORK, traffic_of
from engine.planning.recorder import Collective

SIZE = 1000  # bytes


def exchange(name, ranks):
    """The traffic of one collective of the first ``ranks`` ranks, on nodes of 8."""
    collective = Collective("backward", name, SIZE, tuple(range(ranks)))
    [traffic] = traffic_of([collective], card_of("h100"))
    return traffic


@pytest.mark.parametrize(
    "name, ranks, sent, link_hops, network_hops",
    [
        ("reduce_", 8, 7 / 8, 7, 0),
        ("reduce_", 32, 31 / 32, 28, 3),
        ("_allgather_base_", 16, 15 / 16, 14, 1),
        ("allreduce_", 8, 2 * 7 / 8, 6, 0),
        ("allreduce_", 32, 2 * 31 / 32, 6, 4),
        ("alltoall_base_", 8, 7 / 8, 1, 0),
        ("alltoall_base_", 16, 15 / 16, 1, 1),
    ],
)
def test_rings_and_trees(name, ranks, sent, link_hops, network_hops):
    traffic = exchange(name, ranks)
    assert traffic.sent == pytest.approx(sent * SIZE)
    assert (traffic.link_hops, traffic.network_hops) == (link_hops, network_hops)
    assert traffic.link == (NETWORK if ranks > 8 else LINK)


def test_a_rank_alone_sends_nothing():
    assert traffic_of([Collective("losses", "allreduce_", SIZE, (0,))], card_of("h100")) == []
