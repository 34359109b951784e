"""Tiles lying nobody knows where: no region from the archive to the batch, and no dot on a map."""

import json
from dataclasses import replace

import numpy as np
import pytest

from data.audit.findings.summary import summarise
from data.audit.run import audit
from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.mixture import Mixture
from data.tiles.archive import create_archive, read_tile, write_tile
from data.tiles.regions import NO_REGION
from tests.unit.tiles import SETTINGS, make_tile

HALF = {"a", "c"}  # of the first dataset; all of the third


def placeless(tile):
    return replace(tile, crs="", lon=None, lat=None, transform=(10.0, 0.0, -30.0, 0.0, -10.0, 30.0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("places")
    first = [make_tile(key, seed=number) for number, key in enumerate("abcd")]
    first = [placeless(tile) if tile.key in HALF else tile for tile in first]
    second = [make_tile(key, seed=number + 7) for number, key in enumerate("ef")]
    third = [placeless(make_tile(key, seed=number)) for number, key in enumerate("gh")]
    for name, tiles in (("first", first), ("second", second), ("third", third)):
        write_shards(tiles, folder / name)
    return [folder / name for name in ("first", "second", "third")]


def test_an_archive_keeps_a_tile_without_a_place(tmp_path):
    tile = placeless(make_tile("a"))
    write_tile(create_archive(tmp_path / "archive"), tile)
    again = read_tile(tmp_path / "archive", "a")
    assert (again.crs, again.lon, again.lat) == ("", None, None)
    np.testing.assert_array_equal(again.arrays["ms"], tile.arrays["ms"])


@pytest.mark.parametrize("keys", [{"lon": None}, {"crs": ""}, {"crs": "", "lon": None}])
def test_half_a_place_is_none(tmp_path, keys):
    tile = replace(make_tile("a"), **keys)
    with pytest.raises(InputError, match="expected a CRS, a longitude and a latitude, or none"):
        write_tile(create_archive(tmp_path / "archive"), tile)


def test_the_region_table_has_the_places_that_are_known(folders):
    dataset = ShardDataset.open(folders[0])
    assert len(dataset.regions) == 2
    for sample, key in enumerate(dataset.keys()):
        entry = dataset.entry(sample)
        meta = json.loads(dataset.read_member(sample, "meta"))
        assert meta["lon"] == entry.lon
        if key in HALF:
            assert dataset.region(sample) == NO_REGION and entry.place is None
        else:
            assert dataset.region(sample) == dataset.regions.lookup(*entry.place)


def test_batches_of_a_mixture_say_which_samples_have_no_region(folders):
    """A position from the end of a list would be the region of another sample."""
    settings = replace(SETTINGS, shards="", mixture={str(folder): 1.0 for folder in folders})
    mixture = Mixture.open(settings)
    assert len(mixture.regions) == 4
    keys = mixture.keys()
    for sample, key in enumerate(keys):
        assert (mixture.region(sample) == NO_REGION) == (key in HALF | {"g", "h"})
    seen = set()
    for batch in open_stream(mixture, settings, seed=0, batch_size=4, steps=range(8)):
        for region, key in zip(batch.region.tolist(), batch.keys):
            seen.add(region)
            assert region == mixture.region(keys.index(key))
    assert seen == {NO_REGION, 0, 1, 2, 3}


def test_the_audit_counts_them_and_draws_none(folders):
    dataset = ShardDataset.open(folders[0])
    tally, pixels = audit(dataset)
    summary = summarise(dataset, tally, pixels)
    assert summary.places.unknown == 2
    assert len(summary.places.points) == 2 and len(summary.places.regions) == 2
    assert all(lon >= 3 for lon, _ in summary.places.points)
    assert summary.duplicates.same_picture.pairs == summary.duplicates.overlapping.pairs == 0
