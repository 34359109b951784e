"""The bundled real files, prepared and compared with what the files hold, by routes that share no
code with ours."""

import json
import re
from itertools import pairwise

import h5py
import numpy as np
import pytest
import rasterio
from PIL import Image
from pyproj import Transformer

from data.prepare.make import Task, make_tile
from data.prepare.manifest.read import read_manifest
from data.prepare.record import MadeTile
from data.prepare.run import prepare
from data.tiles.archive import create_archive, read_tile, tile_keys
from data.tiles.classes import FLAIR, INDEX
from tests.paths import SAMPLES

TREE = SAMPLES / "treesatai"
KEYS = (
    "treesat-betula-spec-1-15679",
    "treesat-betula-spec-5-17172",
    "treesat-sample-26743",
    "treesat-sample-43859",
    "flanders-00002806639B424A",
    "flair-sample-3386",
    "kampala-south-east",
    "kampala-north-east",
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """(tiles by key, report, lines) of a run over some of the samples."""
    folder = tmp_path_factory.mktemp("prepare")
    lines = [
        line
        for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()
        if json.loads(line)["key"] in KEYS
    ]
    link = folder / "samples"
    link.symlink_to(SAMPLES)
    records = [json.loads(line) for line in lines]
    for record in records:
        for source in record["sources"]:
            for name in ("path", "path_20m", "like"):
                if name in source:
                    source[name] = f"samples/{source[name]}"
            if "paths" in source:
                source["paths"] = [f"samples/{path}" for path in source["paths"]]
    (folder / "manifest.jsonl").write_text("\n".join(json.dumps(record) for record in records))
    said: list[str] = []
    report = prepare(folder / "manifest.jsonl", folder / "archive", say=said.append)
    assert tile_keys(folder / "archive") == sorted(KEYS)
    return {key: read_tile(folder / "archive", key) for key in KEYS}, report, said


def test_each_file_is_opened_once_a_tile(tmp_path, monkeypatch):
    """The bundled rasters and HDF5 files are checked, placed and read, each through one handle."""
    opened = []

    def counted(library):
        original = getattr(*library)

        def open_file(path, *arguments, **options):
            opened.append(path)
            return original(path, *arguments, **options)

        monkeypatch.setattr(*library, open_file)

    counted((rasterio, "open"))
    counted((h5py, "File"))
    entries = read_manifest(SAMPLES / "manifest.jsonl")
    archive = create_archive(tmp_path / "archive")
    for entry in entries:
        opened.clear()
        assert isinstance(make_tile(archive, Task(entry)), MadeTile)
        assert len(opened) == len(set(opened)), f"{entry.key}: {sorted(opened)}"


def days(names) -> list[str]:
    found = [re.search(r"_(\d{8})T", name.decode()).group(1) for name in names]
    return [f"{d[:4]}-{d[4:6]}-{d[6:]}" for d in found]


def test_manifest_covers_every_sample():
    listed = (SAMPLES / "manifest.jsonl").read_text()
    names = [
        str(p.relative_to(SAMPLES))
        for p in SAMPLES.rglob("*")
        if p.suffix in (".tif", ".h5", ".nc")
    ]
    assert len(names) > 40 and all(name in listed for name in names)
    assert sum("kampala_osm/OAM" in part for part in re.findall(r'"[^"]+"', listed)) == 28


def test_series_come_through_bit_equal_with_exact_dates(prepared):
    tile = prepared[0]["treesat-betula-spec-1-15679"]
    with h5py.File(TREE / "sentinel/Betula_spec._1_15679_WEFL_NLF_2019.h5") as file:
        optical, masks, when = (
            file["sen-2-data"][:],
            file["sen-2-masks"][:],
            days(file["sen-2-products"][:]),
        )
    rows = [when.index(day) for day in tile.dates["ms"]]
    assert len(rows) == 60 and rows == sorted(rows)
    np.testing.assert_array_equal(tile.arrays["ms"], optical[rows])
    clear = (masks[:, 0] < 35) & (masks[:, 1] < 35) & (optical[:, 0] < 1500)
    np.testing.assert_array_equal(tile.valid["ms"], clear[rows])
    assert {i for i in range(len(when)) if clear[i].mean() >= 0.5} == set(rows)


def test_both_orbits_are_joined_with_one_frame_a_day(prepared):
    tile = prepared[0]["treesat-betula-spec-1-15679"]
    power, when = [], []
    with h5py.File(TREE / "sentinel/Betula_spec._1_15679_WEFL_NLF_2019.h5") as file:
        for orbit in ("asc", "des"):
            power.append(file[f"sen-1-{orbit}-data"][:])
            when += days(file[f"sen-1-{orbit}-products"][:])
    power = np.concatenate(power)
    assert len(tile.dates["sar"]) == len(set(tile.dates["sar"])) == 236
    with np.errstate(all="ignore"):
        decibel = 10 * np.log10(power.astype(np.float64))
    good = np.isfinite(decibel).all(axis=1)
    assert not good.all()  # this file has zeros and NaN
    for i, day in enumerate(tile.dates["sar"]):
        same = [k for k, d in enumerate(when) if d == day]
        fullest = max(good[k].sum() for k in same)
        assert any(
            np.allclose(tile.arrays["sar"][i][:, good[k]], decibel[k][:, good[k]], atol=1e-5)
            and (tile.valid["sar"][i] == good[k]).all()
            and good[k].sum() == fullest
            for k in same
        )


def test_scrambled_sar_is_dropped_with_a_line_and_the_rest_stays(prepared):
    tiles, report, said = prepared
    assert tiles["treesat-betula-spec-5-17172"].modalities == ["hr", "ms"]
    assert any(
        "treesat-betula-spec-5-17172: sar: series of 239 frames dropped: scrambled" in line
        for line in said
    )
    record = next(r for r in report["tiles"] if r["key"] == "treesat-betula-spec-5-17172")
    assert any("scrambled" in note for note in record["notes"]) and "sar" not in record["frames"]


def test_aerial_is_the_area_mean_of_red_green_blue(prepared):
    tile = prepared[0]["treesat-betula-spec-1-15679"]
    with rasterio.open(TREE / "aerial/Betula_spec._1_15679_WEFL_NLF.tif") as dataset:
        raw = dataset.read().astype(float)  # NIR R G B
    source, target = 0.2 * np.arange(305), 0.4 + 0.3125 * np.arange(193)
    shared = np.minimum(source[None, 1:], target[1:, None]) - np.maximum(
        source[None, :-1], target[:-1, None]
    )
    weights = np.clip(shared, 0, None) / 0.3125  # 192 304
    expected = np.einsum("ih,jw,chw->cij", weights, weights, raw[1:4], optimize=True)
    assert (
        np.abs(tile.arrays["hr"] - expected).max() <= 1.0
    )  # corners in the file are off by 1e-9 m
    assert tile.valid["hr"].all()  # the fourth band is marked as alpha, and is blue
    assert tile.transform[2] == pytest.approx(428_370.4, abs=1e-3)


def test_sentinel_grid_wins_and_the_uncovered_rim_is_masked(prepared):
    tile = prepared[0]["treesat-sample-26743"]
    folder = TREE / "single_date/sample_26743"
    with rasterio.open(folder / "s2.tif") as dataset:
        raw = dataset.read()
    order = [0, 1, 2, 4, 5, 6, 3, 7, 8, 9]  # the file has B08 fourth
    np.testing.assert_array_equal(tile.arrays["ms"][0], raw[order])
    assert tile.transform == (10.0, 0.0, 554_880.0, 0.0, -10.0, 5_911_400.0)
    rim = np.ones((6, 6), bool)
    rim[5], rim[:, 5] = False, False  # the aerial ends 2.8 m and 3.4 m before the grid
    np.testing.assert_array_equal(tile.valid["hr"][0], rim)
    with rasterio.open(folder / "s1.tif") as dataset:
        sar = dataset.read([1, 2])
    expected = (
        sar[:, :-1, :-1] + sar[:, :-1, 1:] + sar[:, 1:, :-1] + sar[:, 1:, 1:]
    ) / 4  # half a pixel off
    np.testing.assert_allclose(tile.arrays["sar"][0][:, :5, :5], expected, atol=1e-4)


def test_nearly_ten_metre_pixels_count_as_aligned(prepared):
    with rasterio.open(TREE / "single_date/sample_43859/s2.tif") as dataset:
        assert dataset.transform.a == pytest.approx(9.99479, abs=1e-5)
        np.testing.assert_array_equal(
            prepared[0]["treesat-sample-43859"].arrays["ms"][0][0], dataset.read(1)
        )


def test_flanders_bands_clouds_and_dates(prepared):
    tile = prepared[0]["flanders-00002806639B424A"]
    folder = SAMPLES / "flanders/00002806639B424A"
    with (
        h5py.File(next(folder.glob("S2_L2A_10m*"))) as fine,
        h5py.File(next(folder.glob("S2_L2A_20m*"))) as coarse,
    ):
        start = np.datetime64("2017-08-04T10:53:28")
        when = [str(start + np.timedelta64(int(s), "s"))[:10] for s in fine["timestamp"][:]]
        rows = [when.index(day) for day in tile.dates["ms"]]
        for band, name in ((0, "B02"), (1, "B03"), (2, "B04"), (6, "B08")):
            np.testing.assert_array_equal(tile.arrays["ms"][:, band], fine[name][:][rows])
        b11, scene = coarse["B11"][:][rows].astype(float), coarse["SCL"][:][rows]
    clear = ~np.isin(scene, [0, 1, 3, 8, 9, 10, 11]).repeat(2, 1).repeat(2, 2)
    assert not (tile.valid["ms"] & ~clear).any() and (tile.valid["ms"] == clear).mean() > 0.999
    nearer, farther = (
        b11[:, 1:-1, 1:-1],
        b11[:, :-2, :-2],
    )  # upper left quarter of each 20 m pixel: 3/4 and 1/4
    mixed = (9 * nearer + 3 * b11[:, :-2, 1:-1] + 3 * b11[:, 1:-1, :-2] + farther) / 16
    assert np.abs(tile.arrays["ms"][:, 8, 2:-2:2, 2:-2:2] - mixed).max() <= 0.51
    assert tile.transform == (10.0, 0.0, 501_360.0, 0.0, -10.0, 5_629_680.0) and tile.cells == 64
    assert tile.modalities == ["ms", "sar"] and len(tile.dates["sar"]) == 159


def test_flanders_labels_are_the_codes_eight_times_finer(prepared):
    tile = prepared[0]["flanders-00002806639B424A"]
    with h5py.File(next((SAMPLES / "flanders/00002806639B424A").glob("OUTPUT*"))) as file:
        cover, crop = file["LC"][:], file["CT"][:]
    expected = np.full((64, 64), 255)
    for code, name in ((11, "cropland"), (13, "grassland"), (60, "built-up area")):
        expected[cover == code] = INDEX[name]
    expected[crop == 1200], expected[crop == 5100] = INDEX["maize"], INDEX["potatoes"]
    np.testing.assert_array_equal(tile.arrays["labels"], expected.repeat(8, 0).repeat(8, 1))


def test_flair_mask_with_a_broken_crs_lies_on_its_image(prepared):
    tile = prepared[0]["flair-sample-3386"]
    with rasterio.open(SAMPLES / "flair/sample_3386/mask.tif") as dataset:
        assert not dataset.crs.is_projected  # the fault is in the file
        codes = dataset.read(1)
    assert tile.cells == 10
    at = (1.2 + 1.25 * (np.arange(80) + 0.5)) / 0.2  # 1.2 m of 102.4 m are cut on each side
    sure = np.flatnonzero(np.abs(at % 1 - 0.5) < 0.49)
    expected = np.array([INDEX[FLAIR[c]] if c in FLAIR else 255 for c in range(256)])[codes]
    near = np.floor(at[sure]).astype(int)
    np.testing.assert_array_equal(
        tile.arrays["labels"][np.ix_(sure, sure)], expected[np.ix_(near, near)]
    )
    assert (tile.arrays["labels"] == INDEX["building"]).mean() > 0.3


def mercator_pixels(tile, columns, rows, zoom=20):
    """Global web-map pixel coordinates of HR pixel positions (also fractions), through pyproj."""
    x = tile.transform[2] + 0.3125 * columns
    y = tile.transform[5] - 0.3125 * rows
    x, y = Transformer.from_crs(tile.crs, 3857, always_xy=True).transform(x, y)
    scale = 256 * 2**zoom / (2 * np.pi * 6_378_137)
    return (x + np.pi * 6_378_137) * scale, (np.pi * 6_378_137 - y) * scale


def test_web_tiles_land_where_pyproj_says(prepared):
    tile = prepared[0]["kampala-south-east"]
    mosaic = np.zeros((512, 512, 3))
    for x in (619228, 619229):
        for y in (523266, 523267):
            image = Image.open(SAMPLES / f"kampala_osm/OAM-{x}-{y}-20.png").convert("RGB")
            mosaic[(y - 523266) * 256 :, (x - 619228) * 256 :][:256, :256] = np.asarray(image)
    steps = (np.arange(8) + 0.5) / 8
    rng = np.random.default_rng(0)
    rows, columns = rng.integers(0, 32 * tile.cells, (2, 400))
    sub_r, sub_c = (a.ravel() for a in np.meshgrid(steps, steps, indexing="ij"))
    px, py = mercator_pixels(tile, columns[:, None] + sub_c, rows[:, None] + sub_r)
    px, py = px - 619228 * 256, py - 523266 * 256
    assert px.min() >= 0 and py.min() >= 0 and max(px.max(), py.max()) < 512
    expected = mosaic[py.astype(int), px.astype(int)].mean(axis=1)  # area mean by dense sampling
    found = tile.arrays["hr"][:, rows, columns].T
    assert np.abs(found - expected).mean() < 1.5
    moved = tile.arrays["hr"][:, rows, np.minimum(columns + 1, 32 * tile.cells - 1)].T
    assert np.abs(moved - expected).mean() > 8  # one pixel off would show


def test_osm_polygons_are_burnt_where_a_point_test_says(prepared):
    tile = prepared[0]["kampala-south-east"]
    features = json.loads((SAMPLES / "kampala_osm/labels.geojson").read_text())["features"]
    rings = [np.array(f["geometry"]["coordinates"][0]) for f in features]
    size = 8 * tile.cells
    columns, rows = np.meshgrid(np.arange(size) + 0.5, np.arange(size) + 0.5)
    lon, lat = Transformer.from_crs(tile.crs, 4326, always_xy=True).transform(
        tile.transform[2] + 1.25 * columns, tile.transform[5] - 1.25 * rows
    )
    inside = np.zeros((size, size), bool)
    for ring in rings:
        crossings = np.zeros((size, size), int)
        for (x0, y0), (x1, y1) in pairwise(ring):
            spans = (y0 > lat) != (y1 > lat)
            with np.errstate(divide="ignore", invalid="ignore"):
                crossings += spans & (lon < (x1 - x0) * (lat - y0) / (y1 - y0) + x0)
        inside |= crossings % 2 == 1
    labels = tile.arrays["labels"]
    assert set(np.unique(labels)) == {INDEX["building"], 255}
    assert ((labels == INDEX["building"]) == inside).mean() > 0.998 and 0.1 < inside.mean() < 0.5


def test_report_and_licences(prepared):
    tiles, report, _ = prepared
    assert {record["key"] for record in report["tiles"]} == set(KEYS) and report["rejected"] == []
    assert all(tile.licence and tile.attribution and tile.source for tile in tiles.values())
    assert "date accuracy: unknown" in tiles["kampala-south-east"].source
    for tile in tiles.values():
        x, y = Transformer.from_crs(4326, tile.crs, always_xy=True).transform(tile.lon, tile.lat)
        half = 5 * tile.cells
        assert (x, y) == pytest.approx(
            (tile.transform[2] + half, tile.transform[5] - half), abs=0.01
        )
