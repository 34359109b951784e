"""A STAC search without a list of tiles is cut on the pixels of its items."""

import json

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer

from data.errors import InputError
from data.prepare.run import prepare
from data.tiles.archive import read_tile, tile_keys
from tests.unit.data.prepare.test_scenes import MS_BANDS, pixels, write_scene

ZONE = Transformer.from_crs(32631, 4326, always_xy=True)


def item(name, corner, size, *, date="2020-05-01", modality="ms", bands=MS_BANDS, left=0):
    """An item of one file; its geometry lacks ``left`` metres at the left."""
    x, y = corner
    width, height = 10 * size[1], 10 * size[0]
    box = shapely.segmentize(shapely.box(x + left, y - height, x + width, y), 500)
    outline = shapely.transform(box, lambda xy: np.stack(ZONE.transform(*xy.T), axis=1))
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "links": [],
        "geometry": shapely.geometry.mapping(outline),
        "bbox": list(outline.bounds),
        "properties": {
            "datetime": f"{date}T10:40:31Z",
            "skysense": {
                "modality": modality,
                "bands": {"data": bands},
                "scale": 0.0001,
                "offset": 0,
            }
            if modality == "ms"
            else {"modality": modality, "bands": {"data": bands}, "units": "db"},
        },
        "assets": {"data": {"href": f"{name}.tif", "roles": ["data"]}},
    }


def write_search(folder, items, **scene):
    general = {"licence": "CC0-1.0", "attribution": "me", "scene": {"cells": 64, **scene}}
    collection = {"type": "FeatureCollection", "features": items, "skysense": general}
    (folder / "search.json").write_text(json.dumps(collection))
    return folder / "search.json"


@pytest.fixture
def search(tmp_path):
    """Two dates of one granule, its neighbour to the east 640 m below, and Sentinel-1 over all."""
    raw = pixels(256, 256)
    corner, east = (600_000, 5_700_000), (602_560, 5_699_360)
    write_scene(tmp_path / "may.tif", raw, corner=corner)
    write_scene(tmp_path / "june.tif", raw + np.uint16(5), corner=corner)
    write_scene(tmp_path / "east.tif", raw, corner=east)
    power = np.full((2, 150, 300), -10, np.float32)
    power[1] = -17
    s1_pixel = Affine(20, 0, 599_990, 0, -20, 5_700_010)
    write_scene(tmp_path / "s1.tif", power, transform=s1_pixel, nodata=None)
    items = [
        item("s1", (599_990, 5_700_010), (300, 600), modality="sar", bands=["VV", "VH"]),
        item("may", corner, (256, 256)),
        item("june", corner, (256, 256), date="2020-06-01"),
        item("east", east, (256, 256)),
    ]
    return tmp_path, raw, items


def test_a_search_is_cut_on_the_pixels_of_its_items(search):
    folder, raw, items = search
    manifest = write_search(folder, items, key="s")
    report = prepare(manifest, folder / "out", workers=0, say=lambda line: None)
    assert report["rejected"] == [] and len(report["tiles"]) == 32
    # The rectangle around both granules has 5 x 8 tiles; two corners of it are empty.
    keys = {f"s-32631-r{r:03d}-c{c:03d}" for r in range(5) for c in range(8)}
    missing = {f"s-32631-r000-c{c:03d}" for c in range(4, 8)}
    missing |= {f"s-32631-r004-c{c:03d}" for c in range(4)}
    assert set(tile_keys(folder / "out")) == keys - missing
    for r in range(4):
        for c in range(4):
            window = np.s_[:, 64 * r : 64 * r + 64, 64 * c : 64 * c + 64]
            west = read_tile(folder / "out", f"s-32631-r{r:03d}-c{c:03d}")
            assert west.dates["ms"] == ["2020-05-01", "2020-06-01"]
            assert (west.arrays["ms"] == [raw[window], raw[window] + 5]).all()
            assert "sar" in west.modalities
            east = read_tile(folder / "out", f"s-32631-r{r + 1:03d}-c{c + 4:03d}")
            assert (east.arrays["ms"][0] == raw[window]).all() and len(east.dates["ms"]) == 1


def test_tiles_beside_the_geometry_of_an_item_are_not_made(search):
    folder, _, _ = search
    partial = item("may", (600_000, 5_700_000), (256, 256), left=1300)
    report = prepare(
        write_search(folder, [partial]), folder / "out", workers=0, say=lambda line: None
    )
    columns = {tile["key"][-4:] for tile in report["tiles"]}
    assert columns == {"c002", "c003"}
    assert all(tile["key"].startswith("search-32631-r") for tile in report["tiles"])


def test_an_item_that_cannot_be_opened_is_one_rejection_and_its_tiles(search):
    folder, _, items = search
    gone = item("gone", (590_000, 5_690_000), (256, 256))
    report = prepare(
        write_search(folder, [*items, gone], key="s"),
        folder / "out",
        workers=0,
        say=lambda line: None,
    )
    assert len(report["tiles"]) == 32
    assert [tile["key"] for tile in report["rejected"]] == ["s-item-4"]
    assert "gone.tif" in report["rejected"][0]["notes"][0]


def test_the_split_is_that_of_any_scene(search):
    folder, _, items = search
    manifest = write_search(folder, items, key="s", validation=0.5, block_km=1.5)
    report = prepare(manifest, folder / "out", workers=0, say=lambda line: None)
    group = report["groups"]["s"]
    assert set(group["splits"]) == {"train", "validation"}
    assert group["made"] + group["left_out"]["between blocks of two splits"] == 32


@pytest.mark.parametrize(
    "scene, words",
    [
        ({"strid": 3}, "unknown key 'strid'"),
        ({"cells": 0}, "cells: expected 1 to 1024"),
        ({"grid": 0}, "grid: the items themselves give it"),
        ({"key": "a/b"}, "key: expected letters"),
    ],
)
def test_mistakes_of_the_scene_are_told(search, scene, words):
    folder, _, items = search
    with pytest.raises(InputError) as error:
        prepare(write_search(folder, items, **scene), folder / "out", workers=0)
    assert words in str(error.value)


def test_tiles_and_scene_together_and_neither_are_refused(search):
    folder, _, items = search
    manifest = write_search(folder, items)
    (folder / "tiles.csv").write_text("key,lon,lat,cells\na,4.45,51.4,16\n")
    with pytest.raises(InputError, match="found both"):
        prepare(manifest, folder / "out", tiles=folder / "tiles.csv", workers=0)
    content = json.loads(manifest.read_text())
    del content["skysense"]["scene"]
    manifest.write_text(json.dumps(content))
    with pytest.raises(InputError, match="not which tiles to make.*scene"):
        prepare(manifest, folder / "out", workers=0)
    with pytest.raises(InputError, match="no item of the search has pixels of 10 m"):
        prepare(write_search(folder, items[:1]), folder / "out", workers=0, say=lambda line: None)


def test_an_item_whose_outline_lies_beside_its_pixels_is_told(search):
    """A catalogue that has latitudes first: its items would give no tile, without a word."""
    folder, _, items = search
    box = shapely.geometry.shape(items[3]["geometry"])
    exchanged = shapely.transform(box, lambda points: points[:, ::-1])
    items[3]["geometry"] = shapely.geometry.mapping(exchanged)
    path = write_search(folder, items, key="s")
    report = prepare(path, folder / "archive", workers=0, say=str)
    assert [tile["key"] for tile in report["rejected"]] == ["s-item-3"]
    [note] = report["rejected"][0]["notes"]
    assert "east.tif: the geometry of its item" in note and "exchanged?" in note
    assert report["tiles"]
