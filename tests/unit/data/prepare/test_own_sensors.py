"""Sources of own sensors in every form of manifest, against the file that they are read from."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.warp import transform_geom
from shapely.geometry import box, mapping, shape

from data.errors import InputError
from data.prepare.contract.radiometry import Radiometry
from data.prepare.run import prepare
from data.tiles.archive import archive_sensors, read_tile
from data.tiles.definitions import parse_sensors
from data.tiles.modalities import MODALITIES

CELLS = 6
DATE = "2021-06-30"
SENSORS = [
    {"key": "same", "bands": ["R", "G", "B"], "gsd": 0.3125, "unit": "byte", "dtype": "uint8"},
    {"key": "more", "bands": ["NIR", "height"], "gsd": 0.3125, "unit": "x", "dtype": "uint8"},
    {
        "key": "planet",
        "bands": ["blue", "green", "red", "nir"],
        "gsd": 3.3333,
        "unit": "reflectance x 1e4",
        "dtype": "uint16",
        "catalogue": {"platforms": ["planetscope"], "bands": {"nearinfrared": "nir"}},
    },
]
for sensor in SENSORS:
    sensor["nodata"] = 0 if sensor["key"] == "planet" else None


def raster(path: Path, image: np.ndarray, *, gsd: float) -> None:
    """Write C H W at the corner of the tile."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=image.shape[2],
        height=image.shape[1],
        count=len(image),
        dtype=image.dtype,
        crs="EPSG:32631",
        transform=Affine(gsd, 0.0, 5e5, 0.0, -gsd, 5.6e6),
    ) as file:
        file.write(image)


@pytest.fixture
def aerial(tmp_path) -> np.ndarray:
    """An aerial image of five bands in a.tif, and the sensors beside it."""
    (tmp_path / "sensors.json").write_text(json.dumps({"sensors": SENSORS}))
    rng = np.random.default_rng(0)
    image = rng.integers(30, 220, (5, 32 * CELLS, 32 * CELLS)).astype(np.uint8)
    raster(tmp_path / "a.tif", image, gsd=0.3125)
    return image


def make(folder: Path, manifest: str, **options) -> None:
    """Prepare an archive beside the manifest."""
    prepare(
        folder / manifest,
        folder / "archive",
        sensors=folder / "sensors.json",
        workers=0,
        say=lambda line: None,
        **options,
    )


def sources(*keys: str) -> list[dict]:
    """a.tif once for each sensor."""
    source = {
        "reader": "geotiff_image",
        "path": "a.tif",
        "bands": ["R", "G", "B", "NIR", "height"],
        "date": DATE,
    }
    return [{**source, "modality": key} for key in keys]


def test_bands_beside_rgb_come_from_the_same_file(tmp_path, aerial):
    record = {"key": "t", "sources": sources("hr", "more", "same"), "licence": "CC0-1.0"}
    record["attribution"] = "a test"
    (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
    make(tmp_path, "m.jsonl")
    tile = read_tile(tmp_path / "archive", "t")
    assert tile.modalities == ["hr", "more", "same"]
    np.testing.assert_array_equal(tile.arrays["hr"], aerial[:3])
    np.testing.assert_array_equal(tile.arrays["same"], aerial[None, :3])
    np.testing.assert_array_equal(tile.arrays["more"], aerial[None, 3:])
    assert [one.key for one in archive_sensors(tmp_path / "archive")] == ["same", "more", "planet"]


def test_a_table_names_them_too(tmp_path, aerial):
    (source,) = sources("more")
    row = {"key": "t", **source, "licence": "CC0-1.0", "attribution": "a test"}
    row["bands"] = ";".join(row["bands"])
    with (tmp_path / "m.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    make(tmp_path, "m.csv")
    tile = read_tile(tmp_path / "archive", "t")
    np.testing.assert_array_equal(tile.arrays["more"], aerial[None, 3:])


def test_a_catalogue_finds_them_by_platform_and_band(tmp_path, aerial):
    image = np.random.default_rng(1).integers(200, 4000, (4, 20, 20)).astype(np.uint16)
    raster(tmp_path / "p.tif", image, gsd=3)  # B G R N, as PlanetScope has them
    bands = [{"name": name} for name in ("blue", "green", "red", "nearinfrared")]
    ring = [[2.9, 50.5], [3.1, 50.5], [3.1, 50.6], [2.9, 50.6], [2.9, 50.5]]
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "p",
        "links": [],
        "bbox": [2.9, 50.5, 3.1, 50.6],
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "assets": {"analytic": {"href": "p.tif", "roles": ["data"], "eo:bands": bands}},
        "properties": {
            "datetime": f"{DATE}T10:00:00Z",
            "constellation": "PlanetScope",
            "license": "CC0-1.0",
            "skysense": {"attribution": "a test"},
        },
    }
    collection = {"type": "FeatureCollection", "features": [item]}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    corners = transform_geom(
        "EPSG:32631", "OGC:CRS84", mapping(box(5e5, 5.6e6 - 60, 5e5 + 60, 5.6e6))
    )
    (tmp_path / "tiles.csv").write_text(f'key,footprint\nt,"{shape(corners).wkt}"\n')
    make(tmp_path, "items.json", tiles=tmp_path / "tiles.csv")
    tile = read_tile(tmp_path / "archive", "t")
    found = tile.arrays["planet"][0].astype(float)  # 4 18 18
    assert found.shape == (4, 18, 18) and tile.dates["planet"] == [DATE]
    # the mean over the pixel's area, exactly: pixel j of 10/3 m covers [10j/9, 10(j+1)/9) of 3 m
    edges = np.arange(19) * 10 / 9
    overlap = np.minimum(edges[1:, None], np.arange(1, 21)) - np.maximum(
        edges[:-1, None], np.arange(20)
    )
    weights = overlap.clip(0) * 0.9  # 18 20
    expected = weights @ image @ weights.T
    assert np.abs(found - expected)[:, tile.valid["planet"][0].repeat(3, 0).repeat(3, 1)].max() <= 1


def test_a_wrong_sensors_file_ends_the_run_before_it_begins(tmp_path, aerial):
    (tmp_path / "m.jsonl").write_text("{}\n")
    twice = {**SENSORS[0], "key": "hr"}
    (tmp_path / "sensors.json").write_text(json.dumps({"sensors": [twice]}))
    with pytest.raises(InputError, match=r"sensors.json: sensor 'hr': expected scale 255.0"):
        make(tmp_path, "m.jsonl")
    assert not (tmp_path / "archive").exists() and list(MODALITIES) == ["hr", "ms", "sar"]


@pytest.mark.parametrize(
    ("dtype", "nodata", "expected"),
    [
        ("uint8", 255, [0, 100, 254, 254]),
        ("uint8", 0, [1, 100, 255, 255]),
        ("uint8", 100, [0, 101, 255, 255]),
        ("uint8", None, [0, 100, 255, 255]),
        ("int16", -9999, [-32768, 100, 255, 32767]),
    ],
)
def test_a_converted_number_never_becomes_nodata(dtype, nodata, expected):
    content = {**SENSORS[0], "bands": ["a"], "dtype": dtype, "nodata": nodata}
    (definition,) = parse_sensors({"sensors": [content]}, "x")
    raw = np.array([-1e6, 1.0, 2.55, 1e6]).reshape(1, 1, 2, 2)
    numbers = Radiometry(scale=100.0)
    value, valid = numbers.in_units(raw, definition.sensor())
    assert value.ravel().tolist() == expected and valid.all()


@pytest.mark.parametrize(
    ("unit", "crs", "factor"),
    [
        ("ft", "EPSG:32631", 0.3048),
        ("", "EPSG:32631+6360", 0.3048006),  # GDAL gives bands the unit of the heights in a CRS
        ("", "EPSG:32631+5703", 1.0),
        ("metre", "EPSG:32631", 1.0),
    ],
)
def test_heights_in_feet_are_no_metres(tmp_path, unit, crs, factor):
    dem = {"key": "dem", "bands": ["elevation"], "gsd": 10, "unit": "metres", "dtype": "float32"}
    sensors = {"sensors": [{**dem, "nodata": "NaN"}]}
    (tmp_path / "sensors.json").write_text(json.dumps(sensors))
    heights = np.full((1, CELLS, CELLS), 1000.0, np.float32)
    heights[0, 0, :3] = [9.96921e36, -3.4028235e38, 1e20]  # fill values that no tag names
    raster(tmp_path / "a.tif", heights, gsd=10)
    with rasterio.open(tmp_path / "a.tif", "r+") as file:
        file.crs = crs
        if unit:
            file.units = [unit]
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "dem", "date": DATE}
    source["bands"] = ["elevation"]
    record = {"key": "t", "licence": "CC0-1.0", "attribution": "a test", "sources": [source]}
    if factor != 1:
        (tmp_path / "m.jsonl").write_text(json.dumps(record))
        with pytest.raises(InputError, match=rf"a.tif: band 1: .* give 'scale' {factor}"):
            make(tmp_path, "m.jsonl")
        source["scale"] = factor
    (tmp_path / "m.jsonl").write_text(json.dumps(record))
    make(tmp_path, "m.jsonl")
    tile = read_tile(tmp_path / "archive", "t")
    expected = np.ones((1, CELLS, CELLS), bool)
    expected[0, 0, :3] = False
    np.testing.assert_array_equal(tile.valid["dem"], expected)
    assert tile.arrays["dem"][0, 0][expected[0]] == pytest.approx(1000 * factor)
