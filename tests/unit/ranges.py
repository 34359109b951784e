"""A file of known bytes, checked ranges of it, and what a store counted: shared by the tests of the
store."""

import google_crc32c
import numpy as np

from data.storage.ranges import Range

CONTENT = np.random.default_rng(0).bytes(300_000)
# Settings of a store that soon tries again and merges nothing that lies apart.
QUICK = {"delay": 0.01, "max_delay": 0.05, "timeout": 2.0, "gap": 0}


def part(offset, size, content=CONTENT):
    return Range(offset, size, google_crc32c.value(content[offset : offset + size]))


def parts(count, size=500, step=1000):
    """Ranges with holes between, so that no two become one request while the gap is 0."""
    return [part(i * step, size) for i in range(count)]


def slices(ranges, content=CONTENT):
    return [content[r.offset : r.offset + r.size] for r in ranges]


def faults(store):
    return {name: count for name, count in store.counts.items() if name.startswith("fault/")}
