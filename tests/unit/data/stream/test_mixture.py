"""Several datasets as one: numbering, regions, fingerprints, weights, replacements."""

from dataclasses import replace

import pytest

from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.mixture import Mixture
from tests.unit.tiles import SETTINGS, make_tile

NAMES = {
    "one": [make_tile(f"a{i}", i) for i in range(4)],
    "two": [make_tile(f"b{i}", i + 2) for i in range(3)],
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mixture")
    for name, tiles in NAMES.items():
        write_shards(tiles, folder / name, ShardOptions(samples_per_shard=2))
    return {name: folder / name for name in NAMES}


def mixed(folders, **weights):
    return Mixture.open(
        replace(SETTINGS, shards="", mixture={str(folders[k]): w for k, w in weights.items()})
    )


def test_samples_are_those_of_the_parts_in_order(folders):
    mixture, parts = (
        mixed(folders, one=1.0, two=2.0),
        [ShardDataset.open(folders[name]) for name in NAMES],
    )
    assert len(mixture) == 7 and mixture.keys() == parts[0].keys() + parts[1].keys()
    for number, (part, row) in enumerate([(p, row) for p in parts for row in range(len(p))]):
        assert mixture.entry(number) == part.entry(row)
        assert mixture.read(number, [("meta", None)]) == [part.read_member(row, "meta")]
        assert mixture.regions.cells[mixture.region(number)] == part.regions.cells[part.region(row)]
    assert len(mixture.regions) == 5  # longitudes 3, 4, 5, 6 and 5, 6, 7
    assert sum(credit.samples for credit in mixture.attribution) == 7
    with pytest.raises(InputError, match="outside"):
        mixture.entry(7)


def test_one_dataset_is_itself_and_weights_make_another_mixture(folders):
    alone = ShardDataset.open(folders["one"])
    assert mixed(folders, one=5.0).fingerprint == alone.fingerprint
    prints = {
        mixed(folders, one=1.0, two=2.0).fingerprint,
        mixed(folders, one=1.0, two=3.0).fingerprint,
        mixed(folders, two=2.0, one=1.0).fingerprint,
        alone.fingerprint,
    }
    assert len(prints) == 4


def test_a_stream_draws_by_weight(folders):
    mixture = mixed(folders, one=1.0, two=3.0)
    keys = []
    for batch in open_stream(mixture, SETTINGS, seed=0, batch_size=8, steps=range(16)):
        keys += batch.keys
    assert abs(sum(key.startswith("b") for key in keys) / len(keys) - 0.75) < 0.1


def test_a_bad_sample_is_replaced_from_its_own_dataset(folders, tmp_path):
    write_shards(NAMES["two"], tmp_path / "bad", ShardOptions(samples_per_shard=3))
    bad = ShardDataset.open(tmp_path / "bad")
    member = bad.entry(0).members["ms"]
    with open(tmp_path / "bad" / "shard-000000.tar", "r+b") as tar:
        tar.seek(member.offset)
        tar.write(bytes(member.size))
    mixture = Mixture(
        [ShardDataset.open(folders["one"]), ShardDataset.open(tmp_path / "bad", SETTINGS.store)]
    )
    settings = replace(SETTINGS, max_bad_samples=1)
    records = []
    for batch in open_stream(mixture, settings, seed=0, batch_size=8, steps=range(4)):
        records += batch.quarantined
    assert records and {r["key"] for r in records} == {bad.entry(0).key}
    assert all(r["substitute"].startswith("b") for r in records)


def test_equal_parts_and_other_classes_are_refused(folders):
    with pytest.raises(InputError, match="twice"):
        Mixture([ShardDataset.open(folders["one"]), ShardDataset.open(folders["one"])])
    other = ShardDataset.open(folders["two"])
    other.classes = other.classes[:-1]
    with pytest.raises(InputError, match="class table"):
        Mixture([ShardDataset.open(folders["one"]), other])


def test_views_of_both_parts_are_finite(folders):
    mixture = mixed(folders, one=1.0, two=1.0)
    for batch in open_stream(mixture, SETTINGS, seed=0, batch_size=4, steps=range(2)):
        for views in batch.views.values():
            for image in views.images.values():
                assert image.isfinite().all()
