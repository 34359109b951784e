"""Rasters as well-known archives have them, made small: from the file to the numbers of a tile."""

import csv
import json

import numpy as np
import pytest
from affine import Affine
from rasterio.enums import ColorInterp

from data.prepare.run import prepare
from data.tiles.archive import read_tile
from tests.unit.data.prepare.readers.rasters import LEFT, MS, SAR, TOP, write

CELLS = 16
EARTH_ENGINE = [band.replace("B0", "B") for band in MS]


def tile_of(folder, source):
    """The tile of a manifest of one source."""
    source = {"date": "2023-05-20", **source}
    line = {"key": "a", "licence": "CC0-1.0", "attribution": "nobody", "sources": [source]}
    (folder / "m.jsonl").write_text(json.dumps(line))
    report = prepare(folder / "m.jsonl", folder / "out", overwrite=True, workers=0, say=str)
    assert not report["rejected"]
    return read_tile(folder / "out", "a")


def reflectances():
    """Reflectance x 1e4 of ten bands: a ramp of its own for each, whole numbers."""
    ramp = np.arange(CELLS * CELLS).reshape(CELLS, CELLS)
    return np.stack([300 + 200 * band + (band + 1) * ramp for band in range(10)])


def test_doubles_with_an_offset_off_the_usual_grid(tmp_path):
    """As TerraMesh has Sentinel-2: 1000 added, pixels that lie on no multiple of 10 m."""
    corner = Affine(10, 0, LEFT + 3.7, 0, -10, TOP - 1.2)
    bands = ["B01", *MS[:8], "B09", *MS[8:]]
    raw = np.zeros((12, CELLS, CELLS))
    for band, numbers in zip(MS, reflectances()):
        raw[bands.index(band)] = numbers + 1000
    raw[:, 3, 4] = np.nan
    write(tmp_path / "a.tif", raw, transform=corner, nodata=np.nan, names=bands)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "ms"}
    tile = tile_of(tmp_path, {**source, "bands": bands, "scale": 1e-4, "offset": -0.1})
    valid = np.ones((CELLS, CELLS), bool)
    valid[3, 4] = False
    np.testing.assert_array_equal(tile.valid["ms"][0], valid)
    np.testing.assert_array_equal(tile.arrays["ms"][0][:, valid], reflectances()[:, valid])
    assert tile.transform == tuple(corner)[:6]


@pytest.mark.parametrize("scaled", [False, True])
def test_an_export_of_earth_engine(tmp_path, scaled):
    """Bands without zeros in their names, masks beside them; as counts or as reflectance."""
    names = ["B1", *EARTH_ENGINE, "QA60", "MSK_CLDPRB"]
    raw = np.full((13, CELLS, CELLS), 7.0)
    raw[1:11] = reflectances()
    keys = {}
    if scaled:
        raw[:11] /= 1e4
        keys = {"scale": 1.0}
    raw[:, 0, 0] = 0  # masked pixels
    write(tmp_path / "a.tif", raw.astype("float32" if scaled else "uint16"), names=names)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "ms", **keys}
    for bands in (MS, names, dict(zip(MS, EARTH_ENGINE)), list(range(2, 12))):
        tile = tile_of(tmp_path, {**source, "bands": bands})
        valid = tile.valid["ms"][0]
        assert not valid[0, 0] and valid.sum() == CELLS**2 - 1
        np.testing.assert_array_equal(tile.arrays["ms"][0][:, valid], reflectances()[:, valid])


def test_backscatter_of_earth_engine(tmp_path):
    rng = np.random.default_rng(0)
    raw = np.stack([rng.uniform(-20, -5, (CELLS, CELLS)) - gap for gap in (0, 7, -45)])
    write(tmp_path / "a.tif", raw, names=["VV", "VH", "angle"])
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "sar", "bands": SAR}
    tile = tile_of(tmp_path, source)
    np.testing.assert_array_equal(tile.arrays["sar"][0], raw[:2].astype(np.float32))


@pytest.mark.parametrize("tagged", [False, True])
def test_a_planet_scene_as_bytes(tmp_path, tagged):
    """Blue, green, red and near infrared in 16 bits, pixels of 3 m, 0 outside the scene."""
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    raw = np.empty((4, 54, 54), np.uint16)
    raw[:] = np.array([600, 800, 1000, 3000])[:, None, None]
    raw[:, :, 41:] = 0
    tags = {"scales": [1e-4] * 4} if tagged else {}
    write(tmp_path / "a.tif", raw, 3.0, nodata=0, colours=colours, **tags)
    source = {
        "reader": "geotiff_image",
        "path": "a.tif",
        "modality": "hr",
        "scale": 255 / 3000,  # reflectance 0.3 is white
    }
    for bands in (["B", "G", "R", "NIR"], ["red", "green", "blue"], {"R": 3, "G": 2, "B": 1}):
        tile = tile_of(tmp_path, {**source, "bands": bands})
        valid = tile.valid["hr"][0]
        np.testing.assert_array_equal(valid.all(axis=0), np.arange(CELLS) < 12)
        ground = tile.arrays["hr"][:, :, : 12 * 32].reshape(3, -1)
        assert (ground == np.array([[85], [68], [51]])).all()


def test_harmonised_files_of_one_band(tmp_path):
    """Signed numbers with scale and nodata in their tags, a quality layer of bits beside them."""
    files = {}
    for band, numbers in zip(MS, reflectances()):
        raw = numbers.astype(np.int16)[None]
        raw[0, 5, 5] = -9999
        raw[0, 5, 6] = -20 if band == "B12" else 400
        files[band.replace("B0", "B")] = f"{band}.tif"
        write(tmp_path / f"{band}.tif", raw, scales=[1e-4], nodata=-9999)
    tile = tile_of(tmp_path, {"reader": "geotiff_bands", "files": files, "modality": "ms"})
    valid = tile.valid["ms"][0]
    assert not valid[5, 5] and valid.sum() == CELLS**2 - 1
    assert tile.arrays["ms"][0, :, 5, 6].tolist() == [400] * 9 + [1]
    valid[5, 6] = False
    np.testing.assert_array_equal(tile.arrays["ms"][0][:, valid], reflectances()[:, valid])


@pytest.mark.parametrize("bands", ["3;2;1", '{"R": 3, "G": 2, "B": 1}', "blue;green;red"])
def test_a_table_gives_bands_in_the_same_ways(tmp_path, bands):
    raw = np.empty((3, 512, 512), np.uint8)
    raw[:] = np.array([30, 20, 10])[:, None, None]
    write(tmp_path / "a.tif", raw, 0.3125)
    row = {
        "key": "a",
        "licence": "CC0-1.0",
        "attribution": "nobody",
        "reader": "geotiff_image",
        "path": "a.tif",
        "modality": "hr",
        "bands": bands,
        "date": "2023-05-20",
    }
    with (tmp_path / "m.csv").open("w", newline="") as text:
        table = csv.DictWriter(text, row)
        table.writeheader()
        table.writerow(row)
    prepare(tmp_path / "m.csv", tmp_path / "out", workers=0, say=str)
    tile = read_tile(tmp_path / "out", "a")
    assert tile.arrays["hr"][:, 0, 0].tolist() == [10, 20, 30]
