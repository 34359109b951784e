"""Training input over a real HTTP server that fails for a tenth of the requests: the same batches,
faults counted."""

from collections import Counter
from dataclasses import replace

import pytest

from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.storage.settings import StoreSettings
from data.stream.batches import open_stream
from data.stream.mixture import Mixture
from data.stream.settings import GLOBAL, LOCAL
from tests.faulty_server import FaultyServer
from tests.unit.data.stream.test_batches import assert_equal
from tests.unit.tiles import SETTINGS, make_tile

# gap 0: many requests, so every fault comes; the timeout is long beside what a busy machine takes
# for an answer
STORE = StoreSettings(attempts=6, delay=0.01, timeout=5.0, gap=0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("served")
    write_shards([make_tile(f"t{i}", i) for i in range(8)], path, ShardOptions(samples_per_shard=3))
    return path


def batches(root, **changes):
    """Batches of a run, and what its reading counted, opening included."""
    settings = replace(SETTINGS, shards=str(root), **changes)
    mixture = Mixture.open(settings)
    opening = mixture.counts
    found = list(open_stream(mixture, settings, seed=1, batch_size=4, steps=range(6)))
    return found, sum((Counter(batch.reads) for batch in found), opening)


def faults(counts):
    return {name: count for name, count in counts.items() if name.startswith("fault/") and count}


@pytest.mark.parametrize("workers", [0, 2])
def test_a_tenth_of_faults_changes_nothing_and_is_counted(folder, workers):
    clean, _ = batches(folder)
    with FaultyServer(folder, seed=5, share=0.1) as server:
        found, counts = batches(server.url, store=STORE, workers=workers)
        assert_equal(clean, found)
        assert not any(batch.quarantined for batch in found)
        assert faults(counts) == {name: count for name, count in server.expected().items() if count}
        assert set(faults(counts)) == {
            "fault/connection",
            "fault/timeout",
            "fault/short",
            "fault/checksum",
            "fault/status",
        }
    assert counts["bytes"] > 0 and counts["requests"] > 100


def test_a_sample_that_stays_bad_is_quarantined_and_the_others_are_those_of_the_clean_run(
    folder, tmp_path
):
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    mixture = Mixture.open(replace(SETTINGS, shards=str(tmp_path)))
    broken = mixture.keys().index("t5")
    member = mixture.entry(broken).members["ms"]
    with open(tmp_path / f"shard-{broken // 3:06d}.tar", "r+b") as tar:
        tar.seek(member.offset)
        tar.write(bytes(member.size))
    clean, _ = batches(folder)
    with FaultyServer(tmp_path, seed=6, share=0.1) as server:
        found, counts = batches(server.url, store=STORE, max_bad_samples=1, workers=1)
        done = server.expected()["fault/checksum"]
    records = [record for batch in found for record in batch.quarantined]
    assert records and {record["key"] for record in records} == {"t5"}
    assert all("'ms'" in record["reason"] for record in records)
    for good, other in zip(clean, found):
        same = [slot for slot, key in enumerate(good.keys) if key != "t5"]
        assert [good.keys[slot] for slot in same] == [other.keys[slot] for slot in same]
        for size in (GLOBAL, LOCAL):
            for name, image in good.views[size].images.items():
                assert (image[same] == other.views[size].images[name][same]).all()
    assert counts["fault/checksum"] > done  # the damaged member's own, beside the server's
