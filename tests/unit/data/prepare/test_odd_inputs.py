"""Sane files with one odd thing each, from the file to the numbers and the words of a tile."""

import json

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
import shapely

from data.errors import InputError
from data.prepare import make
from data.prepare.build import build_tile
from data.prepare.contract.days import day_of_text, time_of_text, utc_text
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import crs_faults
from data.prepare.manifest.entry import Entry
from data.prepare.manifest.read import read_manifest
from data.prepare.place.spot import spot_of
from data.prepare.readers.cube import NetcdfCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.prepare.run import prepare
from data.tiles.archive import create_archive, read_tile
from data.tiles.classes import INDEX
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED
from tests.unit.data.prepare.readers.rasters import CELLS, GRID, LEFT, SAR, TOP, UTM, frame, write
from tests.unit.manifests import write_parquet, write_stac

CENTRES = np.arange(CELLS) * 10 + 5.0
VV = np.arange(-20.0, -4.0).reshape(CELLS, CELLS)
BACKSCATTER = np.stack([VV, VV - 8])  # dB


def cube(path, dtype="float32", frames=1, numbers=BACKSCATTER, **attributes):
    """A series of SAR as xarray writes it."""
    with h5py.File(path, "w") as file:
        axes = {"time": np.arange(float(frames)), "y": TOP - CENTRES, "x": LEFT + CENTRES}
        for name, values in axes.items():
            file.create_dataset(name, data=values, maxshape=(None,), chunks=(CELLS,)).make_scale()
        file["time"].attrs["units"] = "days since 2023-05-20"
        file.create_dataset("spatial_ref", data=0).attrs["crs_wkt"] = UTM.to_wkt()
        for name, plane in zip(SAR, numbers):
            series = np.repeat(plane[None], frames, axis=0).astype(dtype)  # T H W
            band = file.create_dataset(name, data=series)
            band.attrs.update({"grid_mapping": "spatial_ref", **attributes})
            for i, axis in enumerate(axes):
                band.dims[i].attach_scale(file[axis])
    return path


def reader_of(path, **keys):
    return NetcdfCube(path=path, modality="sar", bands=SAR, **keys)


def tile_of(*readers):
    """A tile on the grid of its first source, and its notes."""
    for reader in readers:
        assert not reader.check_keys()
        reader.check()
    entry = Entry(key="a", readers=readers, licence="x", attribution="y", spot=None)
    return build_tile(entry)


def test_a_group_in_place_of_a_variable_is_named(tmp_path):
    path = cube(tmp_path / "a.nc")
    with h5py.File(path, "a") as file:
        file.move("VV", "inside")
        file.create_group("VV").move("/inside", "backscatter")
    with pytest.raises(InputError, match=r"variable 'VV', found a group .* \['backscatter'\]"):
        reader_of(path).check()


def test_whole_decibels_fit_into_signed_bytes(tmp_path):
    array, valid = frame(write(tmp_path / "a.tif", BACKSCATTER.astype("int8")), SAR, "sar")
    np.testing.assert_array_equal(array, BACKSCATTER)
    assert valid.all()
    tile, _ = tile_of(reader_of(cube(tmp_path / "a.nc", "int8")))
    np.testing.assert_array_equal(tile.arrays["sar"][0], BACKSCATTER)


def test_a_series_without_frames_is_told(tmp_path):
    full = reader_of(cube(tmp_path / "full.nc"))
    empty = reader_of(cube(tmp_path / "empty.nc", frames=0))
    tile, notes = tile_of(full, empty)
    assert notes == ["sources[1] empty.nc: left out, its time axis has no frames"]
    np.testing.assert_allclose(tile.arrays["sar"][0], BACKSCATTER, atol=1e-6)


@pytest.mark.parametrize(
    "dtype, nodata", [("uint16", -9999.0), ("int16", 65535.0), ("int16", 0.5), ("uint8", 256.0)]
)
def test_a_number_that_the_type_cannot_hold_is_refused(tmp_path, dtype, nodata):
    words = f"nodata {nodata:g}: expected a number that {dtype} holds"
    path = write(tmp_path / "a.tif", np.full((2, CELLS, CELLS), 9, dtype))
    with pytest.raises(InputError, match=words):
        frame(path, SAR, "sar", nodata=nodata)
    with pytest.raises(InputError, match=words):
        reader_of(cube(tmp_path / "a.nc", dtype, numbers=-BACKSCATTER), nodata=nodata).check()


@pytest.mark.parametrize(
    "stated, keys", [("dB", "power"), ("linear power", "db"), ("amplitude", "power")]
)
def test_the_unit_of_a_variable_must_be_that_of_the_manifest(tmp_path, stated, keys):
    with pytest.raises(InputError, match=f"VV: the file's unit is '{stated}'.*'{keys}'"):
        reader_of(cube(tmp_path / "a.nc", units=stated), units=keys).check()
    reader_of(cube(tmp_path / "b.nc", units="1"), units=keys).check()


def test_a_black_band_in_a_file_of_its_own_costs_no_pixel(tmp_path):
    rng = np.random.default_rng(5)
    image = rng.integers(1, 256, (3, 128, 128)).astype(np.uint8)
    image[2, 30:90, 30:90] = 0  # a blue that no roof has
    image[:, :32] = 0  # no observation
    files = {}
    for name, plane in zip("RGB", image):
        files[name] = write(tmp_path / f"{name}.tif", plane[None], 0.3125, nodata=0)
    reader = GeoTiffBands(modality="hr", date="2023-05-20", files=files)
    tile, _ = tile_of(reader)
    np.testing.assert_array_equal(tile.arrays["hr"], image)
    expected = np.ones((1, CELLS, CELLS), bool)
    expected[:, 0] = False
    np.testing.assert_array_equal(tile.valid["hr"], expected)


def sar_item(folder, name, columns, time):
    """A gamma nought item in linear power that covers some columns."""
    power = 10 ** (BACKSCATTER / 10)
    power[:, :, [i for i in range(CELLS) if i not in columns]] = -32768
    assets = {}
    for band, plane in zip(SAR, power):
        write(folder / f"{name}_{band}.tif", plane[None].astype("float32"), nodata=-32768)
        assets[band.lower()] = {"href": f"./{name}_{band}.tif", "roles": ["data"]}
    bounds = shapely.box(4.4, 51.4, 4.5, 51.5)
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": name,
        "geometry": shapely.geometry.mapping(bounds),
        "assets": assets,
        "properties": {
            "datetime": time,
            "constellation": "Sentinel-1",
            "license": "x",
            "providers": [{"name": "ESA"}],
        },
    }


@pytest.mark.parametrize(
    "first, second, covered",
    [
        ("05:40:00Z", "05:40:25Z", 4),
        ("05:40:00Z", "17:25:00Z", 3),
        ("00:00:00Z", "00:00:00Z", 3),  # nobody knows
    ],
)
def test_only_slices_of_one_pass_are_joined(tmp_path, first, second, covered):
    items = [
        sar_item(tmp_path, "a", [0, 1, 2], f"2023-05-20T{first}"),
        sar_item(tmp_path, "b", [3], f"2023-05-20T{second}"),
    ]
    lon, lat = GRID.centre
    tiles = f"key,lon,lat,cells\na,{lon},{lat},{CELLS}\n"
    for item in items:
        item["geometry"] = shapely.geometry.mapping(shapely.Point(lon, lat).buffer(0.1))
    path, tile_list = write_stac(tmp_path, items, tiles, skysense={"units": "power"})
    report = prepare(path, tmp_path / "out", tiles=tile_list, workers=0, say=str)
    notes = " ".join(report["tiles"][0]["notes"])
    assert ("parts of 2023-05-20 not joined" in notes) == (first == "00:00:00Z")
    tile = read_tile(tmp_path / "out", "a")
    assert tile.dates["sar"] == ["2023-05-20"]
    expected = np.broadcast_to(np.arange(CELLS) < covered, (1, CELLS, CELLS))
    np.testing.assert_array_equal(tile.valid["sar"], expected)
    array = np.moveaxis(tile.arrays["sar"], 1, -1)[expected]  # pixels C
    np.testing.assert_allclose(array, np.moveaxis(BACKSCATTER[None], 1, -1)[expected], atol=1e-3)


@pytest.mark.parametrize(
    "text, day, hours",
    [
        ("2023-05-20", "2023-05-20", None),
        ("2023-05-20T00:00:00Z", "2023-05-20", None),  # a day as tables write it
        ("2023-05-20T01:30:00+05:00", "2023-05-19", 20.5),
        ("2023-05-20 06:00", "2023-05-20", 6.0),
    ],
)
def test_a_date_keeps_its_time_in_utc(text, day, hours):
    assert day_of_text(text) == day_of_text(utc_text(text)) == day
    time = time_of_text(utc_text(text))
    assert (time is None) == (hours is None)
    if time is not None:
        assert time.hour + time.minute / 60 == hours


def test_an_error_of_the_program_names_its_tile_wherever_it_happens(tmp_path, monkeypatch):
    """Also behind the reading of files, and so in a worker process too."""
    archive = create_archive(tmp_path / "archive")
    reader = reader_of(cube(tmp_path / "a.nc"))
    entry = Entry(key="a", readers=(reader,), licence="x", attribution="y", spot=None)
    monkeypatch.setattr(make, "write_tile", lambda *_: [][1])
    bug = make.make_tile(archive, make.Task(entry))
    assert isinstance(bug, make.Bug)
    assert str(bug).startswith("tile 'a': IndexError: list index out of range; this is a fault")


def test_gdal_does_not_print_what_it_thinks_of_a_crs(capfd):
    assert crs_faults("EPSG:999999")
    bounds = {"bounds": [0, 0, 1, 1], "crs": "EPSG:999998"}
    with pytest.raises(InputError, match="EPSG:999998"):
        spot_of({"footprint": bounds}, "m.jsonl:1")
    assert capfd.readouterr().err == ""


FOUR = np.arange(4 * CELLS * CELLS, dtype=np.uint8).reshape(4, CELLS, CELLS) % 7
QUALITY = np.full((1, CELLS, CELLS), 21824, np.uint16)  # clear, as Landsat's QA_PIXEL has it
QUALITY[0, 1, 2] = 22280  # bits 3, 8, ...: cloud
QUALITY[0, 3, 0] = 23888  # bit 4, ...: shadow
QUALITY[0, 2, 2] = 21952  # bit 7: water


@pytest.mark.parametrize("band, position", [("cloud", 2), ("Cloud", 2), (3, 2), ("1", 0)])
def test_one_band_of_a_mask_file_by_name_or_number(tmp_path, band, position):
    """As scenes have it whose usable-data mask has eight bands, or that bring the mask along."""
    names = ["clear", "snow", "cloud", "haze"]
    mask = write(tmp_path / "udm2.tif", FOUR, names=names)
    path = write(tmp_path / "a.tif", BACKSCATTER.astype("float32"))
    _, valid = frame(path, SAR, "sar", mask=mask, mask_band=band, masked=(3,))
    np.testing.assert_array_equal(valid, FOUR[position] != 3)


def test_bits_of_a_mask_that_hide(tmp_path):
    mask = write(tmp_path / "qa.tif", QUALITY, nodata=1)
    path = write(tmp_path / "a.tif", BACKSCATTER.astype("float32"))
    _, valid = frame(path, SAR, "sar", mask=mask, masked_bits=(3, 4))
    expected = np.ones((CELLS, CELLS), bool)
    expected[1, 2] = expected[3, 0] = False
    np.testing.assert_array_equal(valid, expected)
    _, valid = frame(path, SAR, "sar", mask=mask, masked=(21952,), masked_bits=(4,))
    assert sorted(map(tuple, np.argwhere(~valid).tolist())) == [(2, 2), (3, 0)]


@pytest.mark.parametrize(
    "keys, words",
    [
        ({"mask_band": "clouds"}, r"no band 'clouds' of codes; expected one of \['clear', "),
        ({"mask_band": 5}, "no band 5 of codes; .* a number from 1 to 4"),
        ({}, "expected one band of codes, found 4 of uint8; say which with 'mask_band'"),
    ],
)
def test_a_mask_without_that_band_is_refused(tmp_path, keys, words):
    mask = write(tmp_path / "m.tif", FOUR, names=["clear", "snow", "cloud", "haze"])
    path = write(tmp_path / "a.tif", BACKSCATTER.astype("float32"))
    with pytest.raises(InputError, match=words):
        frame(path, SAR, "sar", mask=mask, masked=(3,), **keys)


def test_keys_of_a_mask_that_make_no_sense(tmp_path):
    keys = {"modality": "sar", "date": "2023-05-20", "path": tmp_path, "bands": SAR}
    (fault,) = GeoTiffImage(**keys, mask_band="SCL").check_keys()
    assert fault == "mask_band 'SCL' without a mask"
    (fault,) = GeoTiffImage(**keys, mask=tmp_path, masked_bits=(3, 40)).check_keys()
    assert fault == "masked_bits [40]: expected numbers from 0 to 30"
    (fault,) = GeoTiffImage(**keys, mask=tmp_path).check_keys()
    assert fault.startswith("mask and masked need each other")


def test_columns_that_writers_of_parquet_add_are_passed_over(tmp_path):
    """The index of pandas, and the bounds beside the geometry of GeoParquet 1.1."""
    square = shapely.box(*GRID.bounds)
    row = {
        "key": "a",
        "licence": "x",
        "attribution": "y",
        "reader": "geotiff_image",
        "path": "a.tif",
        "modality": "sar",
        "bands": ["VV", "VH"],
        "date": "2023-05-20",
        "__index_level_0__": 7,
        "bbox": dict(zip(("xmin", "ymin", "xmax", "ymax"), square.bounds)),
    }
    path = write_parquet(tmp_path / "m.parquet", [row], [square], UTM.to_wkt())
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    corners = {name: ["bbox", name] for name in ("xmin", "ymin", "xmax", "ymax")}
    geo["columns"]["geometry"]["covering"] = {"bbox": corners}
    pq.write_table(table.replace_schema_metadata({"geo": json.dumps(geo)}), path)
    (entry,) = read_manifest(path)
    assert entry.spot.grid() == GRID and entry.readers[0].bands == ("VV", "VH")


def test_labels_in_one_band_of_several(tmp_path):
    """As land cover that brings the probability of each class along."""
    path = write(tmp_path / "a.tif", FOUR, names=["water", "trees", "label", "built"])
    keys = {"path": path, "legend": {"3": "water", "5": "forest"}}
    with pytest.raises(InputError, match="expected one band .* say which with 'band'"):
        GeoTiffLabels(**keys).check()
    expected = np.full((CELLS, CELLS), UNLABELLED)
    expected[FOUR[2] == 3] = INDEX["water"]
    expected[FOUR[2] == 5] = INDEX["forest"]
    for band in ("label", 3):
        (labels,) = GeoTiffLabels(**keys, band=band).read(GRID)
        np.testing.assert_array_equal(labels.draw(GRID)[::8, ::8], expected)


def test_a_file_of_one_frame_without_times_has_the_date_of_its_key(tmp_path):
    """As one scene is written as NetCDF."""
    path = cube(tmp_path / "a.nc")
    with h5py.File(path, "a") as file:
        for name in SAR:
            plane = file[name][0]
            del file[name]
            band = file.create_dataset(name, data=plane)
            band.attrs["grid_mapping"] = "spatial_ref"
            for i, axis in enumerate("yx"):
                band.dims[i].attach_scale(file[axis])
        del file["time"]
    with pytest.raises(InputError, match="no axis time among .*'date' for a file of one frame"):
        reader_of(path).check()
    tile, _ = tile_of(reader_of(path, date="2023-05-20T05:40:00"))
    assert tile.dates["sar"] == ["2023-05-20"]
    np.testing.assert_allclose(tile.arrays["sar"][0], BACKSCATTER, atol=1e-6)
    series = reader_of(cube(tmp_path / "b.nc", frames=2), date="2023-05-20")
    with pytest.raises(InputError, match="and others only of length 1, found {'time': 2"):
        series.check()
    (fault,) = reader_of(path, date="20.5.2023").check_keys()
    assert fault == "date '20.5.2023': expected YYYY-MM-DD"


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_saturated_numbers_of_either_byte_order_are_missing(dtype):
    raw = np.full((1, 10, CELLS, CELLS), 1500, dtype)
    raw[0, 3, 1, 2] = 65535
    array, valid = Radiometry().in_units(raw, MODALITIES["ms"])
    expected = np.ones((1, CELLS, CELLS), bool)
    expected[0, 1, 2] = False
    np.testing.assert_array_equal(valid, expected)
    assert (array[:, :3] == 1500).all()


def test_a_mask_without_times_hides_in_every_frame(tmp_path):
    path = cube(tmp_path / "a.nc", frames=3)
    water = np.zeros((CELLS, CELLS), np.uint8)
    water[1, 2] = water[3, 3] = 1
    with h5py.File(path, "a") as file:
        band = file.create_dataset("water", data=water)
        for i, axis in enumerate("yx"):
            band.dims[i].attach_scale(file[axis])
    tile, _ = tile_of(reader_of(path, mask="water", masked=(1,)))
    np.testing.assert_array_equal(tile.valid["sar"], np.stack([water == 0] * 3))
    with pytest.raises(InputError, match="water: expected the axes {'time': 3,"):
        NetcdfCube(path=path, modality="sar", bands={"VV": "VV", "VH": "water"}).check()
