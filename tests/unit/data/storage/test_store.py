"""Byte ranges from a local folder, a real HTTP server that fails on purpose, and S3: right bytes or
one clear error."""

import multiprocessing
import os
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.storage.faults import MissingFile, ReadError
from data.storage.ranges import Range, merge
from data.storage.settings import StoreSettings
from data.storage.store import Store
from tests.faulty_server import FAULTS, FaultyServer
from tests.unit.ranges import CONTENT, QUICK, faults, part, parts, slices


@pytest.fixture
def folder(tmp_path):
    """Two files of known bytes, one under a name that a URL must quote."""
    (tmp_path / "root" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "a.tar").write_bytes(CONTENT)
    (tmp_path / "root" / "deep" / "b c.tar").write_bytes(CONTENT[::-1])
    return tmp_path / "root"


# ---- right bytes


def test_checksum_is_castagnoli(tmp_path):
    (tmp_path / "a").write_bytes(b"123456789")
    assert Store(tmp_path).ranges("a", [Range(0, 9, 0xE3069283)]) == [
        b"123456789"
    ]  # check value of RFC 3720's CRC32C


@pytest.mark.parametrize("form", ["{0}", "{0}/", "file://{0}"])
def test_local_folder(folder, form):
    store = Store(form.format(folder))
    assert not store.remote and store.root == str(folder)
    assert store.ranges("a.tar", parts(20)) == slices(parts(20))
    assert store.read("deep/b c.tar") == CONTENT[::-1]
    assert (store.size("a.tar"), store.size("none"), store.size("deep"), store.size("a.tar/x")) == (
        len(CONTENT),
        None,
        None,
        None,
    )
    assert faults(store) == {"fault/status": 3}  # what is not there


def test_http_equals_the_local_folder(folder):
    with FaultyServer(folder) as server:
        store = Store(server.url + "/", StoreSettings(**QUICK))
        assert store.remote and store.root == server.url
        assert store.ranges("a.tar", parts(100)) == slices(parts(100))
        assert store.ranges("deep/b c.tar", [part(7, 9, CONTENT[::-1])]) == [CONTENT[::-1][7:16]]
        assert store.read("a.tar") == CONTENT
        assert (store.size("deep/b c.tar"), store.size("none")) == (len(CONTENT), None)
        assert server.counts["ok"] == 102 and store.counts["bytes"] == 100 * 500 + 9 + len(CONTENT)


def test_memory_file_system(folder):
    import fsspec

    fsspec.filesystem("memory").pipe("/store/a.tar", CONTENT)
    store = Store("memory://store")
    assert store.remote and store.read("a.tar") == CONTENT and store.size("a.tar") == len(CONTENT)
    assert store.ranges("a.tar", parts(5)) == slices(parts(5)) and store.size("none") is None


@given(
    st.lists(st.tuples(st.integers(0, len(CONTENT)), st.integers(0, 5000)), max_size=12),
    st.integers(0, 100_000),
)
@settings(max_examples=60, deadline=None)
def test_any_ranges_and_gap_give_the_slices(served, pairs, gap):
    wanted = [part(offset, min(size, len(CONTENT) - offset)) for offset, size in pairs]
    for root in served:
        store = Store(root, StoreSettings(**QUICK | {"gap": gap}))
        assert store.ranges("a.tar", wanted) == slices(wanted)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The same file as a folder and over HTTP."""
    folder = tmp_path_factory.mktemp("served")
    (folder / "a.tar").write_bytes(CONTENT)
    with FaultyServer(folder) as server:
        yield str(folder), server.url


@given(
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 500)), max_size=30),
    st.integers(0, 2000),
)
@settings(deadline=None)
def test_requests_cover_every_range_once_and_lie_apart(pairs, gap):
    ranges = [Range(offset, size, 0) for offset, size in pairs]
    requests = merge(ranges, gap)
    assert sorted(i for request in requests for i in request.positions) == list(range(len(ranges)))
    assert all(
        request.start <= ranges[i].offset and ranges[i].stop <= request.stop
        for request in requests
        for i in request.positions
    )
    assert all(after.start - before.stop > gap for before, after in pairwise(requests))


def test_near_ranges_are_one_request(folder):
    with FaultyServer(folder) as server:
        for gap, count in ((499, 40), (500, 1)):  # holes of 500 bytes
            before = server.counts["ok"]
            store = Store(server.url, StoreSettings(**QUICK | {"gap": gap}))
            assert store.ranges("a.tar", parts(40)) == slices(parts(40))
            assert server.counts["ok"] - before == count


@pytest.mark.parametrize("root, connections", [("http", 1), ("http", 4), ("s3", 4)])
def test_no_more_requests_at_once_than_connections(folder, root, connections):
    with FaultyServer(folder) as server:
        server.wait = 0.05
        options = {} if root == "http" else {"endpoint_url": server.url, "anon": True}
        store = Store(
            server.url + "/deep" if root == "http" else "s3://deep",
            StoreSettings(**QUICK | {"connections": connections, "options": options}),
        )
        store.ranges("b c.tar", [part(i * 1000, 500, CONTENT[::-1]) for i in range(16)])
        assert server.busiest == connections


# ---- faults


@pytest.mark.parametrize(
    "kinds, rounds, timeout", [(set(FAULTS) - {"stall"}, 5, 60.0), (set(FAULTS), 1, 5.0)]
)
def test_every_range_comes_from_a_faulty_server_and_the_counts_agree(
    folder, kinds, rounds, timeout
):
    with FaultyServer(folder, seed=2, share=0.1, faults=sorted(kinds)) as server:
        store = Store(
            server.url,
            StoreSettings(**QUICK | {"attempts": 8, "connections": 32, "timeout": timeout}),
        )
        for _ in range(rounds):
            assert store.ranges("a.tar", parts(300)) == slices(parts(300))
            assert store.read("a.tar", valid=lambda data: data == CONTENT) == CONTENT
        done = {kind: count for kind, count in server.counts.items() if kind in FAULTS}
        assert set(done) == kinds and faults(store) == server.expected()
        assert (
            store.counts["requests"]
            == sum(done.values()) + server.counts["ok"]
            == sum(done.values()) + 301 * rounds
        )


@pytest.mark.parametrize(
    "fault, words",
    [
        ("drop", "Server disconnected"),
        ("reset", "ClientConnectionError"),
        ("stall", "Timeout"),
        ("cut", "ends early"),
        ("short", "499 bytes"),
        ("corrupt", "CRC32C"),
        ("500", "status 500"),
        ("503", "status 503"),
    ],
)
def test_a_fault_that_stays_ends_after_the_attempts(folder, fault, words):
    with FaultyServer(folder, share=1.0, faults=[fault]) as server:
        store = Store(server.url, StoreSettings(**QUICK | {"attempts": 3, "timeout": 0.3}))
        with pytest.raises(ReadError, match=words) as error:
            store.ranges("a.tar", [part(1000, 500)])
        line = str(error.value)
        assert isinstance(error.value, InputError) and "\n" not in line
        assert (
            f"{server.url}/a.tar" in line and "bytes 1000 to 1500" in line and "try 3 of 3" in line
        )
        assert server.counts == {fault: 3} and faults(store) == {f"fault/{FAULTS[fault]}": 3}


def test_pauses_grow_to_the_longest_with_jitter(folder, monkeypatch):
    pauses, sleep = [], time.sleep
    monkeypatch.setattr(
        "data.storage.store.time.sleep", lambda seconds: (pauses.append(seconds), sleep(seconds))
    )
    store = Store(folder, StoreSettings(attempts=6, delay=0.01, max_delay=0.05))
    with pytest.raises(ReadError):
        store.ranges("a.tar", [Range(0, 10, 1)])
    longest = [0.01, 0.02, 0.04, 0.05, 0.05]
    assert len(pauses) == 5 and all(
        most / 2 <= pause <= most for pause, most in zip(pauses, longest)
    )
    assert len({pause / most for pause, most in zip(pauses, longest)}) == 5  # no two shares alike


def test_only_what_failed_is_asked_again(folder):
    with FaultyServer(folder, seed=1, share=0.3, faults=["503"]) as server:
        Store(server.url, StoreSettings(**QUICK | {"attempts": 20})).ranges("a.tar", parts(50))
        assert server.counts["ok"] == 50 and server.counts["503"] > 5


@pytest.mark.parametrize(
    "name, kind, words",
    [("none.tar", MissingFile, "404|no such file"), ("forbidden.tar", ReadError, "403")],
)
def test_a_definite_no_is_not_asked_again(folder, name, kind, words):
    with FaultyServer(folder) as server:
        store = Store(server.url, StoreSettings(**QUICK))
        with pytest.raises(kind, match=words):
            store.ranges(name, parts(1))
        assert server.counts == {"missing": 1} and faults(store) == {"fault/status": 1}
        with pytest.raises(kind, match=words):
            store.read(name)
        assert server.counts == {"missing": 2}


def test_a_size_that_the_server_does_not_say_is_no_missing_file(folder):
    with FaultyServer(folder) as server:
        store = Store(server.url, StoreSettings(**QUICK | {"attempts": 2}))
        with pytest.raises(ReadError, match="403"):
            store.size("forbidden.tar")
    with pytest.raises(ReadError, match="try 2 of 2") as error:  # the server is gone
        store.size("a.tar")
    assert not isinstance(error.value, MissingFile)


def test_a_server_without_ranges_is_one_clear_error_and_sends_no_whole_file(folder):
    (folder / "big.tar").write_bytes(bytes(200 << 20))
    with FaultyServer(folder, ranges=False) as server:
        store = Store(server.url, StoreSettings(**QUICK | {"attempts": 2}))
        with pytest.raises(ReadError, match="ignores ranges"):
            store.ranges("big.tar", [Range(0, 10, 0)])
        assert store.read("a.tar") == CONTENT
    assert store.counts["bytes"] == len(CONTENT) and server.counts["unread"] == 2


def test_a_local_file_that_lies_is_read_again_and_then_an_error(folder):
    store = Store(folder, StoreSettings(**QUICK | {"attempts": 3}))
    with pytest.raises(ReadError, match="instead of 00000001 .* copy it again"):
        store.ranges("a.tar", [Range(0, 10, 1)])
    assert faults(store) == {"fault/checksum": 3}
    with pytest.raises(
        ReadError, match="expected bytes 299990 to 300010 of the file, found 10 bytes"
    ):
        store.ranges("a.tar", [Range(299_990, 20, 0)])
    with pytest.raises(MissingFile, match="no such file, at try 1 of 3"):
        store.ranges("none.tar", parts(1))
    os.replace(
        folder / "deep" / "b c.tar", folder / "a.tar"
    )  # the open handle has the old file: it is opened anew
    assert store.ranges("a.tar", [part(5, 50, CONTENT[::-1])]) == [CONTENT[::-1][5:55]]


def test_options_reach_the_client(folder):
    (folder / "forbidden.tar").write_bytes(CONTENT)
    with FaultyServer(folder) as server:
        options = {"client_kwargs": {"headers": {"Authorization": "Bearer x"}}}
        store = Store(server.url, StoreSettings(**QUICK | {"options": options}))
        assert store.ranges("forbidden.tar", parts(3)) == slices(parts(3))


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"connections": 0}, {"gap": -1}, {"timeout": 0}, {"cache_gb": 0}]
)
def test_impossible_settings(tmp_path, wrong):
    with pytest.raises(InputError, match=f"store.{next(iter(wrong))}"):
        Store(tmp_path, StoreSettings(**wrong))


def test_unknown_protocol():
    with pytest.raises(InputError, match="Protocol not known"):
        Store("nothing://x").size("a")


# ---- processes


def _work(store, pipe):
    wanted = parts(60)
    right = all(store.ranges("a.tar", wanted) == slices(wanted) for _ in range(5))
    pipe.send((right, os.getpid()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("remote", [False, True])
def test_a_used_store_goes_to_other_processes(folder, method, remote):
    """Parent and children read at the same time; the parent had connections open before."""
    context = multiprocessing.get_context(method)
    with FaultyServer(folder) as server:
        store = Store(server.url if remote else folder, StoreSettings(**QUICK | {"timeout": 10.0}))
        store.ranges("a.tar", parts(60))
        children = []
        for _ in range(3):
            mine, theirs = context.Pipe(duplex=False)
            children.append((context.Process(target=_work, args=(store, theirs)), mine))
            children[-1][0].start()
        for _ in range(10):
            assert store.ranges("a.tar", parts(60)) == slices(parts(60))
        for process, pipe in children:
            assert pipe.poll(60)
            right, pid = pipe.recv()
            assert right and pid == process.pid
            process.join(60)
            assert process.exitcode == 0
        assert store.ranges("a.tar", parts(60)) == slices(parts(60)) and not faults(store)


# ---- S3


@pytest.mark.parametrize("kinds", [set(FAULTS) - {"drop", "reset"}, {"drop", "reset"}])
def test_s3_client_on_a_faulty_server(tmp_path, kinds):
    """Nobody below the store asks again unseen, except for lost connections."""
    pytest.importorskip("s3fs")
    (tmp_path / "bucket" / "set").mkdir(parents=True)
    (tmp_path / "bucket" / "set" / "a.tar").write_bytes(CONTENT)
    with FaultyServer(tmp_path, seed=3, share=0.1, faults=sorted(kinds)) as server:
        store = Store(
            "s3://bucket/set",
            StoreSettings(
                **QUICK
                | {
                    "attempts": 8,
                    "timeout": 5.0,
                    "options": {"endpoint_url": server.url, "anon": True},
                }
            ),
        )
        assert store.ranges("a.tar", parts(300)) == slices(parts(300))
        assert kinds <= set(server.counts)
        if "drop" in kinds:
            assert faults(store).get("fault/connection", 0) <= server.expected()["fault/connection"]
        else:
            assert faults(store) == server.expected()
        with pytest.raises(MissingFile, match="status 404"):
            store.read("none")
    with pytest.raises(ReadError, match="Could not connect"):
        store.ranges("a.tar", parts(1))


@pytest.fixture
def bucket(monkeypatch):
    """A bucket of a real S3 server on loopback."""
    pytest.importorskip("s3fs")
    from moto.server import ThreadedMotoServer

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}"}
    import s3fs

    files = s3fs.S3FileSystem(**options, skip_instance_cache=True)
    files.mkdir("bucket")
    files.pipe("bucket/set/a.tar", CONTENT)
    yield StoreSettings(**QUICK | {"options": options, "attempts": 2, "timeout": 20.0})
    server.stop()


def test_s3(bucket):
    store = Store("s3://bucket/set", bucket)
    assert store.remote and store.ranges("a.tar", [*parts(40), part(7, 0)]) == slices(
        [*parts(40), part(7, 0)]
    )
    assert store.read("a.tar") == CONTENT
    assert (store.size("a.tar"), store.size("none"), Store("s3://bucket", bucket).size("set")) == (
        len(CONTENT),
        None,
        None,
    )
    for read in (lambda: store.read("none"), lambda: store.ranges("none", parts(1))):
        with pytest.raises(MissingFile, match="try 1 of 2"):
            read()
    with pytest.raises(ReadError, match="CRC32C .* try 2 of 2"):
        store.ranges("a.tar", [Range(0, 10, 1)])
