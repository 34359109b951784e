"""Whether all ranks are about to do the same work, asked before the first step.

A rank with another learning rate would train to the end without a word, and one that saves at other
steps would wait for ever.
"""

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data.hashing import content_hash
from engine.distributed.collectives import collect
from engine.errors import RankError

_NOTHING = "nothing"  # what a message says of a fact that a rank does not have
_NAMED = 3  # further facts that a message names


@dataclass(frozen=True)
class RankFacts:
    """What one rank says of itself."""

    host: str
    facts: Mapping[str, Any]


def require_agreement(facts: Mapping[str, Any]) -> None:
    """Check that all ranks have the same facts.

    Every rank must call it. The ranks exchange one hash; the facts themselves travel only where
    the hashes differ.

    Args:
        facts: Name of a fact -> JSON value.

    Raises:
        RankError: The facts differ; the same line on all ranks says which, and on which ranks.
    """
    digest = content_hash(json.dumps(facts, sort_keys=True).encode())
    if len(set(collect(lambda: digest))) > 1:
        own = RankFacts(platform.node(), facts)
        raise RankError(disagreement(collect(lambda: own)))


def disagreement(ranks: Sequence[RankFacts]) -> str:
    """One line on the first fact that differs from that of rank 0.

    Args:
        ranks: Of every rank, in rank order. They do not all have the same facts.
    """
    first = ranks[0]
    places: dict[str, None] = {}  # of all ranks, in their order
    for other in ranks:
        places |= dict.fromkeys(other.facts)
    different = []
    for place in places:
        if any(_value(other, place) != _value(first, place) for other in ranks):
            different.append(place)
    place = different[0]
    line = f"{place}: expected {_value(first, place)} on every rank, as on rank 0 ({first.host}), "
    line += f"found {_others(ranks, place)}"
    if different[1:]:
        names = ", ".join(different[1 : 1 + _NAMED])
        line += f"; {len(different) - 1} more differ: {names}"
        if len(different) > 1 + _NAMED:
            line += ", ..."
    return f"{line}; start all ranks with the same command, files and code"


def _value(rank: RankFacts, place: str) -> str:
    """How a message shows a fact of a rank."""
    if place not in rank.facts:
        return _NOTHING
    return json.dumps(rank.facts[place], ensure_ascii=False)


def _others(ranks: Sequence[RankFacts], place: str) -> str:
    """The values that are not rank 0's, each with the ranks that have it."""
    expected = _value(ranks[0], place)
    holders: dict[str, list[int]] = {}
    for rank, other in enumerate(ranks):
        value = _value(other, place)
        if value != expected:
            holders.setdefault(value, []).append(rank)
    parts = []
    for value, numbers in holders.items():
        word = "rank"
        if len(numbers) > 1:
            word = "ranks"
        hosts = dict.fromkeys(ranks[rank].host for rank in numbers)
        parts.append(f"{value} on {word} {_spans(numbers)} ({', '.join(hosts)})")
    return ", ".join(parts)


def _spans(numbers: Sequence[int]) -> str:
    """Ascending numbers, neighbours joined: ``1, 4-7``."""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = []
    for low, high in spans:
        word = str(low)
        if high > low:
            word += f"-{high}"
        words.append(word)
    return ", ".join(words)
