"""What a tile is made of: neighbours, provenance, doubts; and whose error ends what."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare import build
from data.prepare.build import build_tile, provenance
from data.prepare.contract.files import Remote
from data.prepare.contract.source import Frames
from data.prepare.make import BugError
from data.prepare.manifest.read import read_manifest
from data.prepare.place.grid import Grid
from data.prepare.readers.geotiff import GeoTiffImage
from data.prepare.run import prepare
from data.tiles.archive import tile_keys
from data.tiles.modalities import MODALITIES
from launch.__main__ import main
from launch.stoppable import SIGNALS

LEFT, TOP = 600_000.0, 5_700_000.0


def write(path: Path, array, pixel, *, left=LEFT, top=TOP, **options) -> str:
    """A north-up GeoTIFF; returns the path's text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=array.shape[0],
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        crs="EPSG:32631",
        transform=Affine(pixel, 0, left, 0, -pixel, top),
        **options,
    ) as dataset:
        dataset.write(array)
    return str(path)


def source(path: str, modality: str, date="2022-08-17", **keys) -> dict:
    bands = list(MODALITIES[modality].bands)
    return {
        "reader": "geotiff_image",
        "path": path,
        "modality": modality,
        "bands": bands,
        "date": date,
        **keys,
    }


def manifest(folder: Path, **tiles) -> Path:
    """A manifest of tiles, each a list of sources or a whole record."""
    lines = []
    for key, sources in tiles.items():
        record = {"key": key, "licence": "CC0-1.0", "attribution": "nobody"}
        if isinstance(sources, list):
            sources = {"sources": sources}
        lines.append(json.dumps({**record, **sources}))
    path = folder / "manifest.jsonl"
    path.write_text("\n".join(lines))
    return path


def test_halves_of_a_day_that_each_are_too_poor_are_one_whole_frame(tmp_path):
    rng = np.random.default_rng(0)
    whole = rng.integers(300, 4000, (10, 32, 32)).astype(np.uint16)
    west, east = whole.copy(), whole.copy()
    west[:, :, 15:] = 0
    east[:, :, :15] = 0
    paths = [
        write(tmp_path / "33UWP" / "s2.tif", west, 10.0, nodata=0),
        write(tmp_path / "33UXP" / "s2.tif", east, 10.0, nodata=0),
    ]
    (entry,) = read_manifest(manifest(tmp_path, a=[source(path, "ms") for path in paths]))
    tile, notes = build_tile(entry)
    np.testing.assert_array_equal(tile.arrays["ms"][0], whole)
    assert tile.valid["ms"].all() and tile.dates["ms"] == ["2022-08-17"]
    assert tile.source == "33UWP/s2.tif; 33UXP/s2.tif"  # equal names, other folders
    assert notes == ["ms: 1 frames joined to others that cover another part"]


@pytest.mark.parametrize("pixel, seam", [(0.3125, 150.0), (0.2, 151.0), (0.25, 147.25)])
def test_sheets_meet_without_a_gap_wherever_their_border_lies(tmp_path, pixel, seam):
    ground = 320.0
    widths = (round(seam / pixel), round((ground - seam) / pixel))
    height = round(160 / pixel)
    left = np.full((3, height, widths[0]), 100, np.uint8)
    right = np.full((3, height, widths[1]), 110, np.uint8)
    sheets = [
        write(tmp_path / "a.tif", left, pixel),
        write(tmp_path / "b.tif", right, pixel, left=LEFT + widths[0] * pixel),
    ]
    dates = ["2022-06-01", "2022-07-09"]
    box = {"bounds": [LEFT + 80, TOP - 160, LEFT + 240, TOP], "crs": "EPSG:32631"}
    record = {
        "footprint": box,
        "sources": [source(path, "hr", date) for path, date in zip(sheets, dates)],
    }
    (entry,) = read_manifest(manifest(tmp_path, a=record))
    tile, _ = build_tile(entry)
    assert tile.valid["hr"].all() and tile.arrays["hr"].shape == (3, 512, 512)
    border = (seam - 80) / 0.3125
    columns = np.arange(512) + 0.5
    row = tile.arrays["hr"][0, 200]
    assert (row[columns < border - 1.5] == 100).all() and (row[columns > border + 1.5] == 110).all()
    assert ((row >= 100) & (row <= 110)).all()


def test_the_place_of_a_file_stands_in_the_tile(tmp_path):
    def reader(path):
        return GeoTiffImage(path=path, bands=("R",), modality="hr", date="2020-01-01")

    assert provenance(reader(tmp_path / "a.tif"), "a.tif", tmp_path) == "a.tif"
    assert provenance(reader(tmp_path / "x/y/a.tif"), "a.tif", tmp_path) == "x/y/a.tif"
    beside = provenance(reader(tmp_path / "a.tif"), "a.tif", tmp_path / "manifests")
    assert beside == "../a.tif"
    signed = Remote("https://store.example/c/a.tif?sig=secret")
    assert signed.name == "a.tif"
    assert provenance(reader(signed), signed.name, tmp_path) == "https://store.example/c/a.tif"


def test_numbers_in_a_wrong_unit_cost_their_tile_and_doubts_are_counted(tmp_path, capsys):
    rng = np.random.default_rng(0)
    power = rng.gamma(4, 0.25, (2, 24, 24)) * np.array([0.06, 0.012])[:, None, None]
    field = rng.integers(1200, 4000, (10, 24, 24)).astype(np.uint16)
    field[:3] = rng.integers(1150, 1600, (3, 24, 24))
    sources = {
        "power": [source(write(tmp_path / "p.tif", power.astype(np.float32), 10.0), "sar")],
        "raised": [source(write(tmp_path / "r.tif", field, 10.0), "ms")],
    }
    sources["right"] = [{**sources["power"][0], "units": "power"}]
    words = ["prepare", "--manifest", str(manifest(tmp_path, **sources)), "--workers", "0"]
    with pytest.raises(SystemExit) as caught:
        main([*words, "--out", str(tmp_path / "out")])
    output = capsys.readouterr()
    assert caught.value.code == 3 and output.err == ""
    assert tile_keys(tmp_path / "out") == ["raised", "right"]
    assert "power: tile rejected: " in output.out and "'units': 'power'" in output.out
    assert "raised: doubtful numbers: ms: " in output.out and "'offset': -0.1" in output.out
    assert "2 tiles, 1 rejected, 1 with doubtful numbers; see report.json" in output.out


def test_one_missing_pixel_costs_its_cell_and_both_shares_are_told():
    valid = np.ones((1, 128, 128), bool)
    valid[:, 5::32, 7::32] = False
    array = np.zeros((1, 3, 128, 128), np.uint8)
    frames = Frames(modality="hr", array=array, valid=valid, dates=["2020-05-01"], source="")
    cells = build.by_cell(frames, Grid(CRS.from_epsg(32631), LEFT, TOP, 4))
    assert not cells.valid.any()
    line = build._shares_of_poor(cells, frames)
    assert line == " (2020-05-01: 0% of the cells, 99.9% of the pixels)"


@pytest.fixture(autouse=True)
def signals():
    """The command sets its own handlers, for a process that ends with it."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def one_bug(tmp_path, monkeypatch):
    """Two tiles, and an error of this program's own code at the second."""
    image = np.full((3, 128, 128), 90, np.uint8)
    path = write(tmp_path / "a.tif", image, 0.3125)
    original = build.check_tile

    def check_tile(tile):
        if tile.key == "second":
            return {}["never there"]
        return original(tile)

    monkeypatch.setattr(build, "check_tile", check_tile)
    return manifest(tmp_path, first=[source(path, "hr")], second=[source(path, "hr")])


def test_a_bug_ends_the_run_and_its_first_line_names_the_tile(one_bug, tmp_path, capsys):
    with pytest.raises(BugError) as caught:
        prepare(one_bug, tmp_path / "out", workers=0)
    first, *rest = str(caught.value).splitlines()
    assert "'second'" in first and "KeyError: 'never there'" in first
    assert rest[0].startswith("Traceback")
    assert tile_keys(tmp_path / "out.partial") == ["first"]  # what is made stays
    with pytest.raises(SystemExit) as left:
        main(["prepare", "--manifest", str(one_bug), "--out", str(tmp_path / "out"), "--workers=0"])
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("fault: tile 'second': KeyError")


def test_a_refused_source_names_its_file(tmp_path):
    numbers = np.random.default_rng(0).integers(20, 300, (2, 24, 24)).astype(np.float32)
    path = write(tmp_path / "grd" / "dn.tif", numbers, 10.0)
    (entry,) = read_manifest(manifest(tmp_path, a=[source(path, "sar")]))
    with pytest.raises(InputError, match="dn.tif: .* digital numbers.*'units'.*'scale'"):
        build_tile(entry)
