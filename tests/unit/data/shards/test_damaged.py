"""After any damage to a dataset the samples are right, or one line says what is wrong."""

import json
import shutil
from contextlib import contextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.records import manifest_hash
from data.shards.writer import write_shards
from data.storage.settings import StoreSettings
from tests.unit.tiles import make_tile

ONCE = StoreSettings(attempts=1)
FILES = [
    "manifest.json",
    "shard-000000.index.jsonl",
    "shard-000000.tar",
    "shard-000001.index.jsonl",
]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    write_shards(
        [make_tile(f"t{i}", i, cells=4) for i in range(3)],
        folder,
        ShardOptions(samples_per_shard=2),
    )
    return folder


def content(folder):
    """Everything that a reader can ask for."""
    dataset = ShardDataset.open(folder, ONCE)
    found = [dataset.fingerprint, dataset.classes, dataset.attribution, dataset.regions.to_json()]
    for sample in range(len(dataset)):
        entry = dataset.entry(sample)
        found += [
            dataset.region(sample),
            entry,
            [dataset.read_member(sample, field) for field in entry.members],
        ]
        found += [
            dataset.read_frames(sample, name, range(len(entry.dates[name])))
            for name in ("ms", "sar")
        ]
    return found


changes = st.one_of(
    st.tuples(st.just("flip"), st.floats(0, 1, exclude_max=True), st.integers(0, 7)),
    st.tuples(st.just("cut"), st.floats(0, 1, exclude_max=True), st.just(0)),
    st.tuples(st.just("junk"), st.binary(max_size=60), st.just(0)),
)


def apply(data, change):
    kind, what, bit = change
    if kind == "junk":
        return what
    place = int(what * len(data))
    return (
        data[:place]
        if kind == "cut"
        else data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
    )


@contextmanager
def suppress_damage():
    """A list that holds the message of the InputError that the block raised, if any."""
    messages = []
    try:
        yield messages
    except InputError as error:
        messages.append(str(error))


@settings(max_examples=150, deadline=None)
@given(name=st.sampled_from(FILES), change=changes)
def test_damage_is_found_or_harmless(shards, tmp_path_factory, name, change):
    copy = tmp_path_factory.mktemp("damaged") / "shards"
    shutil.copytree(shards, copy)
    (copy / name).write_bytes(apply((shards / name).read_bytes(), change))
    with suppress_damage() as damage:
        assert content(copy) == content(shards)
    if damage:
        assert "\n" not in damage[0]
        assert "shards" in damage[0]
    shutil.rmtree(copy.parent)


values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)


@settings(max_examples=100, deadline=None)
@given(
    key=st.sampled_from(
        ["format", "version", "samples", "shards", "fingerprint", "regions", "classes", "hash"]
    ),
    value=values,
)
def test_a_manifest_with_another_value_is_refused(shards, tmp_path_factory, key, value):
    manifest = json.loads((shards / "manifest.json").read_text())
    if manifest[key] == value:
        return
    copy = tmp_path_factory.mktemp("other")
    (copy / "manifest.json").write_text(json.dumps({**manifest, key: value}))
    with pytest.raises(InputError, match="manifest.json"):
        ShardDataset.open(copy, ONCE)


def test_the_hash_is_over_everything_else(shards):
    manifest = json.loads((shards / "manifest.json").read_text())
    assert manifest["hash"] == manifest_hash(manifest) != manifest_hash({**manifest, "samples": 4})
