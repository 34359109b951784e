"""The local cache of blocks: asked once, checked always, whole or not there, and its share fixed by
a hash."""

import logging
import os
import pickle
import resource
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from data.errors import InputError
from data.storage.cache import STALE, Cache
from data.storage.settings import StoreSettings
from data.storage.store import Store
from tests.faulty_server import FaultyServer
from tests.paths import ROOT
from tests.unit.ranges import CONTENT, QUICK, faults, part, slices


@pytest.fixture
def folder(tmp_path):
    """A folder with one file."""
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "a.tar").write_bytes(CONTENT)
    return tmp_path / "root"


SIZE = len(CONTENT)
BLOCKS = [(i * 10_000, 10_000) for i in range(30)]


def cached(url, tmp_path, total=SIZE, **changes):
    store = Store(url, StoreSettings(**QUICK | {"cache": str(tmp_path / "cache")} | changes))
    store.keep("f1", total)
    return store


def read_blocks(store, blocks=BLOCKS):
    """Two ranges of every block."""
    for offset, size in blocks:
        wanted = [part(offset + 100, 200), part(offset + size - 50, 50)]
        assert store.ranges("a.tar", wanted, block=(offset, size)) == slices(wanted)


def test_blocks_are_asked_once_even_after_a_restart(folder, tmp_path):
    with FaultyServer(folder) as server:
        store = cached(server.url, tmp_path)
        read_blocks(store)
        assert server.counts["ok"] == 30 and store.counts["bytes"] == len(CONTENT)
        read_blocks(store)
        other = cached(server.url, tmp_path)
        wanted = [part(5000, 3000)]  # other bytes of a kept block
        assert other.ranges("a.tar", wanted, block=BLOCKS[0]) == slices(wanted)
        assert server.counts["ok"] == 30 and (
            store.counts["cache/hits"],
            other.counts["cache/hits"],
        ) == (30, 1)
        other.keep("f2", len(CONTENT))  # another dataset shares nothing
        read_blocks(other)
        assert server.counts["ok"] == 60


def test_a_local_root_may_have_a_cache_too(folder, tmp_path):
    store = cached(folder, tmp_path)
    read_blocks(store)
    read_blocks(store)
    assert store.counts["cache/hits"] == 30


def test_a_damaged_block_is_dropped_and_fetched_anew(folder, tmp_path):
    with FaultyServer(folder) as server:
        store = cached(server.url, tmp_path)
        read_blocks(store)
        kept = tmp_path / "cache" / "f1" / "a.tar"
        for number, data in ((0, b""), (10_000, bytes(10_000)), (20_000, CONTENT[20_000:29_990])):
            (kept / str(number)).write_bytes(data)
        read_blocks(store)
        assert faults(store) == {"fault/cache": 3} and server.counts["ok"] == 33
        read_blocks(store)
        assert server.counts["ok"] == 33 and (kept / "0").read_bytes() == CONTENT[:10_000]


def test_a_block_that_cannot_be_read_or_removed_does_not_stop_the_reading(folder, tmp_path, caplog):
    store = cached(folder, tmp_path)
    (tmp_path / "cache" / "f1" / "a.tar" / "10000").mkdir(parents=True)
    with caplog.at_level(logging.WARNING):
        read_blocks(store)
    assert faults(store) == {"fault/cache": 1} and len(caplog.records) == 1


def test_wrong_bytes_are_never_kept(folder, tmp_path):
    with FaultyServer(folder, seed=5, share=0.4, faults=["corrupt", "short", "cut"]) as server:
        store = cached(server.url, tmp_path, attempts=30)
        read_blocks(store)
        assert server.expected() == faults(store) != {}
    for offset, size in BLOCKS:
        assert (tmp_path / "cache" / "f1" / "a.tar" / str(offset)).read_bytes() == CONTENT[
            offset : offset + size
        ]


def test_a_cache_smaller_than_the_dataset_keeps_a_fixed_share(folder, tmp_path):
    cache = Cache(tmp_path / "c", "f1", share=0.25)
    kept = {
        (shard, i)
        for shard in range(20)
        for i in range(500)
        if cache.keeps(f"shard-{shard:06d}.tar", i * 512)
    }
    assert (
        abs(len(kept) / 10_000 - 0.25) < 5 * (0.25 * 0.75 / 10_000) ** 0.5
    )  # five standard deviations
    assert all(any((shard, i) in kept for i in range(500)) for shard in range(20))
    with FaultyServer(folder) as server:
        store = cached(server.url, tmp_path, total=2 * len(CONTENT), cache_gb=len(CONTENT) / 1e9)
        read_blocks(store)
        chosen = {int(path.name) for path in (tmp_path / "cache" / "f1" / "a.tar").iterdir()}
        assert (
            chosen == {offset for offset, _ in BLOCKS if store.cache.keeps("a.tar", offset)}
            and 0 < len(chosen) < 30
        )
        before = server.counts["ok"]
        read_blocks(store)
        assert server.counts["ok"] - before == 2 * (
            30 - len(chosen)
        )  # two ranges of every other block


def test_a_disk_that_refuses_gives_one_warning_and_reading_goes_on(folder, tmp_path, caplog):
    with FaultyServer(folder) as server:
        store = cached(server.url, tmp_path)
        read_blocks(store, BLOCKS[:5])
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(
            resource.RLIMIT_FSIZE, (4000, limits[1])
        )  # the kernel refuses to write further
        try:
            with caplog.at_level(logging.WARNING):
                read_blocks(store)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, handler)
        assert len(caplog.records) == 1 and "reading goes on" in caplog.text
        assert store.counts["cache/hits"] == 5  # what is kept is still served
        assert not list((tmp_path / "cache" / "f1" / "partial").iterdir())
        assert server.counts["ok"] == 5 + 1 + 24 * 2


def test_a_cache_folder_that_cannot_be_is_an_error(folder, tmp_path):
    (tmp_path / "cache").write_text("a file")
    with pytest.raises(InputError, match="expected a folder for the cache"):
        cached(folder, tmp_path)


WRITER = """
import sys
from data.storage.cache import Cache
cache, block = Cache(sys.argv[1], "f1", share=1.0), b"whole" * 4_000_000
print("ready", flush=True)
while True:
    for offset in range(5):
        cache.write("a.tar", offset, block)
"""


def test_a_killed_writer_leaves_whole_blocks_only(tmp_path):
    left = 0
    for number in range(6):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE
        )
        assert writer.stdout.readline() == b"ready\n"
        time.sleep(0.15 + 0.013 * number)
        writer.kill()
        writer.wait()
        writer.stdout.close()
        left = max(left, len(list((tmp_path / "f1" / "partial").iterdir())))
    assert left  # some were killed in the middle
    blocks = list((tmp_path / "f1" / "a.tar").iterdir())
    assert blocks and all(path.read_bytes() == b"whole" * 4_000_000 for path in blocks)
    rest = next((tmp_path / "f1" / "partial").iterdir())
    os.utime(rest, (time.time() - 2 * STALE,) * 2)
    Cache(tmp_path, "f1", share=1.0)
    assert (
        not rest.exists()
    )  # a later start removes it once it is old: another process may be writing a young one


def test_a_pickled_store_keeps_its_cache_and_drops_its_counts(folder, tmp_path):
    store = cached(folder, tmp_path)
    read_blocks(store)
    other = pickle.loads(pickle.dumps(store))
    assert other.counts == Counter() and other.root == store.root
    read_blocks(other)
    assert other.counts == {"cache/hits": 30}
