"""Pairs of samples that occur twice, with their keys."""

from data.audit.findings.records import DuplicateFindings, KeyPairs
from data.audit.rules.duplicates import Pairs, equal_values, overlapping, same_picture
from data.audit.rules.spilled import SpilledRows
from data.shards.dataset import ShardDataset

LISTED = 20  # pairs of every kind that are named


def duplicate_findings(dataset: ShardDataset, rows: SpilledRows) -> DuplicateFindings:
    """Search all samples for pairs with the same key, bytes or picture, and for overlaps.

    Args:
        dataset: the audited dataset, for the keys.
        rows: a row for each sample.
    """
    pictures = [same_picture(rows, column, listed=LISTED) for column in ("hr_hash", "ms_hash")]
    return DuplicateFindings(
        same_key=_named(dataset, equal_values(rows, "key_hash", listed=LISTED)),
        same_bytes=_named(dataset, equal_values(rows, "content_hash", listed=LISTED)),
        same_picture=_named(dataset, _together(pictures)),
        overlapping=_named(dataset, overlapping(rows, listed=LISTED)),
    )


def _together(searches: list[Pairs]) -> Pairs:
    """The pairs of several searches."""
    count = 0
    first: list[tuple[int, int]] = []
    for pairs in searches:
        count += pairs.count
        first += pairs.first
    return Pairs(count, sorted(first)[:LISTED])


def _named(dataset: ShardDataset, pairs: Pairs) -> KeyPairs:
    """Replace numbers of samples by their keys."""
    named = [[dataset.entry(one).key, dataset.entry(other).key] for one, other in pairs.first]
    return KeyPairs(pairs.count, named)
