"""Pairs of samples that occur twice, with their keys."""

from data.audit.findings.records import DuplicateFindings, KeyPairs
from data.audit.findings.tally import NO_HASH, Columns, as_array
from data.audit.rules.duplicates import Pairs, equal_values, overlapping, same_picture
from data.shards.dataset import ShardDataset

LISTED = 20  # pairs of every kind that are named


def duplicate_findings(dataset: ShardDataset, columns: Columns) -> DuplicateFindings:
    """Search all samples for pairs with the same key, bytes or picture, and for overlaps.

    Args:
        dataset: the audited dataset, for the keys.
        columns: a row for each sample.
    """
    lon = as_array(columns.lon)
    lat = as_array(columns.lat)
    pictures = []
    for column in (columns.hr_hash, columns.ms_hash):
        hashes = as_array(column)
        pictures.append(same_picture(lon, lat, hashes, hashed=hashes != NO_HASH, listed=LISTED))
    keys = equal_values(as_array(columns.key_hash), listed=LISTED)
    content = equal_values(as_array(columns.content_hash), listed=LISTED)
    overlaps = overlapping(lon, lat, as_array(columns.cells), listed=LISTED)
    return DuplicateFindings(
        same_key=_named(dataset, columns, keys),
        same_bytes=_named(dataset, columns, content),
        same_picture=_named(dataset, columns, _together(pictures)),
        overlapping=_named(dataset, columns, overlaps),
    )


def _together(searches: list[Pairs]) -> Pairs:
    """The pairs of several searches."""
    count = 0
    first: list[tuple[int, int]] = []
    for pairs in searches:
        count += pairs.count
        first += pairs.first
    return Pairs(count, sorted(first)[:LISTED])


def _named(dataset: ShardDataset, columns: Columns, pairs: Pairs) -> KeyPairs:
    """Replace rows of the columns by the keys of their samples."""
    named = []
    for one, other in pairs.first:
        first = dataset.entry(columns.number[one])
        second = dataset.entry(columns.number[other])
        named.append([first.key, second.key])
    return KeyPairs(pairs.count, named)
