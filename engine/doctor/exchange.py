"""How fast ranks exchange data: within each node, between pairs of nodes, and all together.

A node with a slow or broken link slows everybody, so the exchange of all cannot tell which it is.
Within nodes, and between each node and two others, it shows.
"""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
import torch.distributed as dist

WITHIN = "within a node"
PAIRS = "between two nodes"
OTHER_PAIRS = "between two other nodes"
ALL = "of all ranks"
ALL_REDUCE = "all-reduce"
ALL_TO_ALL = "all-to-all"
_REPEATS = 3

Parts = list[list[int]]  # the ranks of each of several groups, all ranks together


def parts(hosts: Sequence[str]) -> dict[str, Parts]:
    """Title -> the groups that exchange data at the same time.

    Args:
        hosts: Of each rank, in rank order.
    """
    nodes: dict[str, list[int]] = {}
    for rank, host in enumerate(hosts):
        nodes.setdefault(host, []).append(rank)
    by_node = list(nodes.values())
    found = {WITHIN: by_node}
    if len(by_node) > 2:
        found[PAIRS] = _pairs(by_node)
        found[OTHER_PAIRS] = _pairs([*by_node[1:], by_node[0]])
    if len(by_node) > 1:
        found[ALL] = [list(range(len(hosts)))]
    return found


def _pairs(nodes: Parts) -> Parts:
    """Each two neighbours together; of an odd number the last three."""
    paired = []
    for first in range(0, len(nodes) - 1, 2):
        paired.append(nodes[first] + nodes[first + 1])
    if len(nodes) % 2:
        paired[-1] = paired[-1] + nodes[-1]
    return paired


def speeds(groups: Parts, *, size: int, device: torch.device) -> Iterator[tuple[str, float]]:
    """Name and bytes/s of each kind of exchange in this rank's group. Every rank must call it.

    They are those that each rank sends, as nccl-tests count them ("bus bandwidth"), so groups of
    any size compare. A rank that is alone has none.

    Args:
        groups: One of ``parts``.
        size: Bytes of each rank's buffer.
        device: This rank's.
    """
    rank = dist.get_rank()
    own = None
    members = 1
    for ranks in groups:
        group = dist.new_group(ranks)  # all ranks make all groups
        if rank in ranks:
            own = group
            members = len(ranks)
    if members == 1:
        return
    buffer = torch.zeros(size // (4 * members) * members, device=device)  # float32
    received = torch.zeros_like(buffer)

    def reduce() -> None:
        dist.all_reduce(buffer, group=own)

    def exchange() -> None:
        dist.all_to_all_single(received, buffer, group=own)

    sent = buffer.numel() * 4 * (members - 1) / members
    yield ALL_REDUCE, 2 * sent / _seconds(reduce, device)
    yield ALL_TO_ALL, sent / _seconds(exchange, device)


def _seconds(call: Callable[[], None], device: torch.device) -> float:
    """The shortest of some calls; the first one, which connects the ranks, is not counted."""
    call()
    best = float("inf")
    for _ in range(_REPEATS):
        _finish(device)
        began = time.perf_counter()
        call()
        _finish(device)
        best = min(best, time.perf_counter() - began)
    return best


def _finish(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
