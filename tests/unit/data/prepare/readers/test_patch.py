"""Pictures and arrays without a place: from files to tiles, against formulas in float64."""

import json
import struct

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.orientation import orientation_of
from data.prepare.manifest.read import read_manifest
from data.tiles.classes import INDEX
from data.tiles.tile import UNLABELLED

TEN = ["B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"]
TWELVE = ["B01", *TEN[:8], "B09", *TEN[8:]]
HR = {"reader": "patch", "modality": "hr", "bands": ["R", "G", "B"], "gsd": 0.3}
MS = {"reader": "patch", "modality": "ms", "bands": TEN, "gsd": 10}
SAR = {"reader": "patch", "modality": "sar", "bands": ["VV", "VH"], "gsd": 10}


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def made(folder, *sources, **keys):
    """The tile of some sources, and its notes."""
    record = {"key": "a", "licence": "CC0-1.0", "attribution": "me", "sources": sources, **keys}
    manifest = folder / "m.jsonl"
    manifest.write_text(json.dumps(record))
    (entry,) = read_manifest(manifest)
    for reader in entry.readers:
        reader.check()
    return build_tile(entry)


def picture(path, array, **options):
    """Store an array (H, W, 3) or (H, W)."""
    Image.fromarray(array).save(path, **options)
    return {**HR, "path": path.name}


def ground(rng, *shape):
    """Reflectance x 1e4 of some land."""
    return rng.integers(400, 4000, shape).astype(np.uint16)


def backscatter(rng, side):
    vv = rng.normal(-9, 1, (side, side))
    return np.stack([vv, vv - 7]).astype(np.float32)


def shares(pixels, gsd, *, first, size, count):
    """Overlap (count, pixels) of target pixels with source pixels, each row adding up to 1."""
    begin = first + size * np.arange(count)[:, None]
    source = gsd * np.arange(pixels)[None]
    overlap = np.minimum(begin + size, source + gsd) - np.maximum(begin, source)
    return overlap.clip(0) / size


@pytest.mark.parametrize(
    ("gsd", "side", "first", "cells"), [(0.3, 160, 3.9, 4), (0.1, 333, 1.6, 3)]
)
def test_pixels_of_another_size_are_means_over_their_area(tmp_path, rng, gsd, side, first, cells):
    pixels = rng.integers(0, 256, (side, side, 3), np.uint8)
    tile, notes = made(tmp_path, {**picture(tmp_path / "a.png", pixels), "gsd": gsd})
    weights = shares(side, gsd, first=first, size=0.3125, count=32 * cells)
    expected = weights @ pixels.transpose(2, 0, 1).astype(np.float64) @ weights.T
    assert np.abs(tile.arrays["hr"] - expected).max() <= 0.5 + 1e-3
    assert tile.valid["hr"].all() and notes == []
    assert (tile.cells, tile.crs, tile.lon, tile.lat) == (cells, "", None, None)
    assert tile.transform == (10, 0, -5 * cells, 0, -10, 5 * cells)
    assert tile.dates == {"hr": ["2020-07-01"]}
    assert tile.source == f"a.png ({gsd:g} m a pixel, date accuracy: unknown); (no place)"


@pytest.mark.parametrize("shape", [(64, 64), (71, 139), (130, 65)])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_kept_pixels_are_never_resampled(tmp_path, rng, shape, suffix):
    pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
    options = {"lossless": True} if suffix == "webp" else {}
    source = picture(tmp_path / f"a.{suffix}", pixels, **options)
    tile, _ = made(tmp_path, {**source, "gsd": 0.5, "pixels": "keep"})
    side = 32 * (min(shape) // 32)
    windows = np.lib.stride_tricks.sliding_window_view(pixels, (side, side), axis=(0, 1))
    same = (windows == tile.arrays["hr"]).all(axis=(2, 3, 4))
    top, left = np.argwhere(same)[0]
    for begin, whole in ((top, shape[0]), (left, shape[1])):
        assert abs(2 * begin - (whole - side)) <= 64  # the middle, but for a cell
    assert "0.5 m a pixel, taken for 0.3125 m" in tile.source


@pytest.mark.parametrize("last", [False, True])
def test_sensors_of_one_array_file_come_through_bit_for_bit(tmp_path, rng, last):
    optical = ground(rng, 12, 37, 37)
    radar = backscatter(rng, 37)
    stored = (optical, radar)
    if last:
        stored = (np.moveaxis(optical, 0, -1), np.moveaxis(radar, 0, -1)[None])
    np.savez(tmp_path / "a.npz", s2=stored[0], s1=stored[1])
    tile, _ = made(
        tmp_path,
        {**MS, "path": "a.npz", "array": "s2", "bands": TWELVE, "date": "20170613T101031"},
        {**SAR, "path": "a.npz", "array": "s1"},
    )
    chosen = [TWELVE.index(band) for band in TEN]
    np.testing.assert_array_equal(tile.arrays["ms"][0], optical[chosen])
    np.testing.assert_array_equal(tile.arrays["sar"][0], radar)
    assert tile.cells == 37 and tile.dates["ms"] == ["2017-06-13"]
    assert "a.npz[s2] (10 m a pixel); a.npz[s1] (10 m a pixel, date" in tile.source


def test_axes_bands_by_number_and_scales_as_the_manifest_says(tmp_path, rng):
    reflectance = rng.uniform(0.02, 0.5, (20, 16, 11))  # columns, rows, bands
    np.save(tmp_path / "a.npy", reflectance)
    bands = {band: number + 2 for number, band in enumerate(TEN)}
    keys = {"axes": "WHC", "bands": bands, "scale": 1.0}
    tile, _ = made(tmp_path, {**MS, "path": "a.npy", **keys})
    expected = np.rint(reflectance.transpose(2, 1, 0)[1:] * 10_000)
    np.testing.assert_array_equal(tile.arrays["ms"][0], expected[:, :, 2:18])


def test_numbers_of_no_observation_are_masked(tmp_path, rng):
    optical = ground(rng, 10, 8, 8)
    optical[:, 2, 3] = 0
    radar = backscatter(rng, 8)
    radar[1, 5, 5] = np.nan
    np.savez(tmp_path / "a.npz", s2=optical, s1=radar)
    tile, _ = made(
        tmp_path,
        {**MS, "path": "a.npz", "array": "s2"},
        {**SAR, "path": "a.npz", "array": "s1"},
    )
    assert np.argwhere(~tile.valid["ms"][0]).tolist() == [[2, 3]]
    assert np.argwhere(~tile.valid["sar"][0]).tolist() == [[5, 5]]


def test_a_centre_gives_a_patch_its_place_and_a_footprint_its_cells(tmp_path, rng):
    np.save(tmp_path / "a.npy", ground(rng, 10, 30, 30))
    source = {**MS, "path": "a.npy"}
    tile, _ = made(tmp_path, source, centre=[9.1, 48.7])
    assert tile.crs == "EPSG:32632" and tile.cells == 30 and "no place" not in tile.source
    assert abs(tile.lon - 9.1) < 1e-4 and abs(tile.lat - 48.7) < 1e-4
    box = {"bounds": [580380, 4792500, 580680, 4792800], "crs": "EPSG:32634"}
    tile, _ = made(tmp_path, source, footprint=box)
    assert tile.transform == (10, 0, 580380, 0, -10, 4792800)
    np.testing.assert_array_equal(tile.arrays["ms"][0], np.load(tmp_path / "a.npy"))
    box["bounds"][0] -= 300
    with pytest.raises(InputError, match="30 x 30 whole cells of 10 m, and the tile 60 x 60"):
        made(tmp_path, source, footprint=box)


def test_a_patch_beside_a_georeferenced_raster_has_its_place(tmp_path, rng):
    options = {"driver": "GTiff", "count": 2, "height": 6, "width": 6, "dtype": "float32"}
    options |= {"crs": "EPSG:25832", "transform": Affine(10, 0, 650_832.8, 0, -10, 5_881_665.4)}
    with rasterio.open(tmp_path / "s1.tif", "w", **options) as file:
        file.write(backscatter(rng, 6))
    photo = rng.integers(0, 256, (304, 304, 3), np.uint8)
    radar = {"reader": "geotiff_image", "path": "s1.tif", "modality": "sar", "date": "2020-05-01"}
    tile, _ = made(
        tmp_path,
        {**radar, "bands": ["VV", "VH"]},
        {**picture(tmp_path / "a.png", photo), "gsd": 0.2},  # 60.8 m
    )
    assert (tile.crs, tile.cells, tile.transform[2]) == ("EPSG:25832", 6, 650_832.8)
    assert tile.arrays["hr"].shape == (3, 192, 192) and tile.valid["hr"].all()


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz"])
def test_codes_of_a_patch_are_its_labels(tmp_path, rng, suffix):
    codes = rng.choice([3, 7, 9], (12, 12)).astype(np.uint8)
    np.save(tmp_path / "image.npy", ground(rng, 10, 12, 12))
    path = tmp_path / f"codes{suffix}"
    if suffix == ".png":
        Image.fromarray(codes).save(path)
    elif suffix == ".npy":
        np.save(path, codes[None].astype(np.int64))
    else:
        np.savez(path, codes)
    legend = {"3": "water", "7": "forest"}
    labels = {"reader": "patch_labels", "path": path.name, "legend": legend, "gsd": 10}
    tile, _ = made(tmp_path, {**MS, "path": "image.npy"}, labels)
    expected = np.full((12, 12), UNLABELLED)
    expected[codes == 3] = INDEX["water"]
    expected[codes == 7] = INDEX["forest"]
    np.testing.assert_array_equal(tile.arrays["labels"], expected.repeat(8, 0).repeat(8, 1))


def test_sensors_that_do_not_cover_the_same_ground_are_refused(tmp_path, rng):
    np.save(tmp_path / "s1.npy", backscatter(rng, 10))
    photo = picture(tmp_path / "a.png", rng.integers(0, 256, (160, 160, 3), np.uint8))
    with pytest.raises(InputError) as error:
        made(tmp_path, photo, {**SAR, "path": "s1.npy"})
    assert str(error.value) == (
        "tile 'a': a.png (160 x 160 pixels of 0.3 m: 48 x 48 m) and s1.npy (10 x 10 pixels of 10 "
        "m: 100 x 100 m) do not cover the same ground; correct 'gsd', or cut the files to one size"
    )


def _georeferenced(folder):
    options = {"driver": "GTiff", "count": 3, "height": 40, "width": 40, "dtype": "uint8"}
    place = {"crs": "EPSG:32632", "transform": Affine(1, 0, 5e5, 0, -1, 5e6)}
    with rasterio.open(folder / "a.tif", "w", **options, **place) as file:
        file.write(np.full((3, 40, 40), 90, np.uint8))
    return {**HR, "path": "a.tif"}


def _arrays(folder, keys=None, **arrays):
    np.savez(folder / "a.npz", **arrays)
    return {**MS, "path": "a.npz", **(keys or {})}


def _objects(folder):
    np.save(folder / "a.npy", np.array([{"a": 1}]), allow_pickle=True)
    return {**MS, "path": "a.npy"}


def _text(folder):
    (folder / "a.npy").write_text("no array")
    return {**MS, "path": "a.npy"}


def _shapes(folder):
    (folder / "a.geojson").write_text('{"type": "FeatureCollection", "features": []}')
    np.save(folder / "a.npy", np.full((10, 8, 8), 900, np.uint16))
    tags = {"building": "yes"}
    return {**MS, "path": "a.npy"}, {"reader": "osm", "path": "a.geojson", "tags": tags}


FULL = np.full((10, 8, 8), 900, np.uint16)
REFUSED = {
    "a georeferenced file": (_georeferenced, "a.tif: has a place .EPSG:32632.*geotiff_image"),
    "several arrays": (
        lambda folder: _arrays(folder, s1=FULL, s2=FULL),
        "a.npz: has the arrays \\['s1', 's2'\\]; say which with 'array'",
    ),
    "an unknown array": (
        lambda folder: _arrays(folder, {"array": "s3"}, s1=FULL, s2=FULL),
        "no array 's3'.*the file has \\['s1', 's2'\\]",
    ),
    "axes that could be both": (
        lambda folder: _arrays(folder, a=np.full((10, 12, 10), 900, np.uint16)),
        "which axis of \\(10, 12, 10\\) holds the bands.*'axes'",
    ),
    "other axes": (lambda folder: _arrays(folder, {"axes": "HW"}, a=FULL), "axes 'HW': the array"),
    "other bands": (lambda folder: _arrays(folder, a=FULL[:4]), "has 4 bands without names"),
    "a series": (
        lambda folder: _arrays(folder, a=np.full((5, 10, 8, 8), 900, np.uint16)),
        "expected one image .*found the shape \\(5, 10, 8, 8\\)",
    ),
    "nothing": (lambda folder: _arrays(folder, a=FULL[:, :0]), "a is empty: \\(10, 0, 8\\)"),
    "objects": (_objects, "a.npy: expected a file of numpy arrays without objects"),
    "text": (_text, "a.npy: expected a file of numpy arrays"),
    "less than a cell": (
        lambda folder: picture(folder / "a.png", np.full((33, 90, 3), 90, np.uint8)),
        "33 x 90 pixels of 0.3 m: 9.9 x 27 m\\): not even one cell",
    ),
    "shapes without a place": (_shapes, "a.geojson: shapes need a tile with a place"),
    "no file": (lambda folder: {**HR, "path": "b.png"}, "no file .*b.png"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_files_that_cannot_be_right_are_refused_in_one_line(tmp_path, name):
    prepared, message = REFUSED[name]
    sources = prepared(tmp_path)
    if isinstance(sources, dict):
        sources = (sources,)
    with pytest.raises(InputError, match=message) as error:
        made(tmp_path, *sources)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"gsd": 0}, "gsd 0.0: expected metres of ground"),
        ({"gsd": "10"}, "gsd: expected a number"),
        ({"pixels": "kept"}, "pixels 'kept': expected one of .*did you mean 'keep'"),
        ({"array": "s2"}, "array 's2': only of .npy and .npz files"),
        ({"path": "a.npy", "axes": "CWW"}, "axes 'CWW': expected one of"),
        ({"path": "s3://a/b.npz"}, "expected arrays in a file of this file system"),
        ({"date": "2020-13-01"}, "date '2020-13-01': expected YYYY-MM-DD"),
        ({"date_accuracy": "year"}, "date '': expected YYYY-MM-DD"),
        ({"bands": ["R", "G"]}, "lack \\['B'\\] of hr"),
        ({"modality": "rgb"}, "modality 'rgb': expected one of"),
    ],
)
def test_keys_that_cannot_work_are_found_in_the_manifest(tmp_path, keys, message):
    with pytest.raises(InputError, match=f"m.jsonl:1: .*{message}"):
        made(tmp_path, {**HR, "path": "a.png", **keys})


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_a_picture_that_its_exif_turns_is_refused(tmp_path, rng, suffix):
    """Its labels may lie on it as it is stored, or as it is shown."""
    array = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    for orientation in (1, 6):
        exif = Image.Exif()
        exif[0x0112] = orientation
        name = f"{orientation}.{suffix}"
        source = picture(tmp_path / name, array, exif=exif)
        if orientation == 1:
            made(tmp_path, source)
            continue
        with pytest.raises(InputError, match=rf"{name}: expected an upright .* orientation 6"):
            made(tmp_path, source)


def test_exif_is_found_wherever_a_png_has_it(tmp_path, rng):
    """Programs that add it to a finished picture write it behind the pixels."""
    array = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 8
    source = picture(tmp_path / "a.png", array, exif=exif)
    stored = (tmp_path / "a.png").read_bytes()
    begin = stored.index(b"eXIf") - 4
    (length,) = struct.unpack(">I", stored[begin : begin + 4])
    end = begin + length + 12  # length, name and checksum
    last = stored.index(b"IEND") - 4
    moved = stored[:begin] + stored[end:last] + stored[begin:end] + stored[last:]
    (tmp_path / "a.png").write_bytes(moved)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == array).all()
    with pytest.raises(InputError, match=r"a.png: expected an upright .* orientation 8"):
        made(tmp_path, source)


@pytest.mark.parametrize("order", ["<", ">"])
def test_the_orientation_of_a_big_tiff_is_read(tmp_path, order):
    mark = {"<": b"II", ">": b"MM"}[order]
    head = mark + struct.pack(order + "HHHQ", 43, 8, 0, 16)
    width = struct.pack(order + "HHQQ", 256, 4, 1, 64)
    turned = struct.pack(order + "HHQH6x", 274, 3, 1, 3)
    (tmp_path / "a.tif").write_bytes(head + struct.pack(order + "Q", 2) + width + turned)
    assert orientation_of(tmp_path / "a.tif") == 3


def test_a_picture_of_lightness_and_two_colours_is_no_rgb(tmp_path, rng):
    array = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    Image.fromarray(array).convert("LAB").save(tmp_path / "a.tif")
    with pytest.raises(InputError, match=r"a.tif: expected red, green .* found .* 'CIELAB'"):
        made(tmp_path, {**HR, "path": "a.tif"})


def test_inks_are_turned_into_colours(tmp_path, rng):
    array = rng.integers(0, 255, (128, 128, 3)).astype(np.uint8)
    inks = np.concatenate([255 - array, np.zeros((128, 128, 1), np.uint8)], axis=2)
    for name, options in (("a.tif", {}), ("a.jpg", {"quality": 100, "subsampling": 0})):
        Image.fromarray(inks, "CMYK").save(tmp_path / name, **options)
        tile, _ = made(tmp_path, {**HR, "path": name, "pixels": "keep"})
        difference = tile.arrays["hr"].astype(int) - array.transpose(2, 0, 1)
        assert np.abs(difference).max() <= 3, name


@pytest.mark.parametrize("damage", ["cut off", "zeros"])
def test_a_damaged_png_is_no_picture(tmp_path, rng, damage):
    """Downloads end early, or leave zeros where nothing arrived."""
    array = rng.integers(0, 255, (256, 256, 3)).astype(np.uint8)
    source = picture(tmp_path / "a.png", array)
    stored = bytearray((tmp_path / "a.png").read_bytes())
    middle = len(stored) // 2
    if damage == "zeros":
        stored[middle : middle + 3000] = bytes(3000)
    else:
        del stored[middle:]
    (tmp_path / "a.png").write_bytes(stored)
    with pytest.raises(InputError, match=r"a.png: expected a picture, found a damaged"):
        made(tmp_path, source)
    Image.fromarray(array[..., 0]).save(tmp_path / "codes.png")
    stored = (tmp_path / "codes.png").read_bytes()
    (tmp_path / "codes.png").write_bytes(stored[: len(stored) // 2])
    labels = {"reader": "patch_labels", "path": "codes.png", "legend": {"3": "water"}, "gsd": 0.3}
    with pytest.raises(InputError, match=r"codes.png: expected a picture, found a damaged"):
        made(tmp_path, {**picture(tmp_path / "b.png", array)}, labels)
