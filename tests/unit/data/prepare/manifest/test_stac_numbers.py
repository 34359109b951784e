"""Reflectance of Sentinel-2 from the catalogues that people use, with and without its offset."""

import copy

import numpy as np
import pytest

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.days import day_of_text
from data.prepare.manifest.entry import Entry
from data.prepare.manifest.read import read_manifest
from tests.unit.data.prepare.readers.scene import BANDS, FINE, SCENE, clouds, write
from tests.unit.manifests import earth_search_item, write_stac

TILES = "key,lon,lat,cells\na,9.1,48.7,64\n"
DAY = "2022-07-01T10:36:41.123Z"
PRODUCT = "S2B_MSIL2A_20220701T103641_N{}_R008_T32UPU_20220701T150000"
DARK = 1  # what an observed reflectance below zero becomes


def planetary_item(**changes) -> dict:
    """As the Planetary Computer has items: no numbers at all, bands by their names."""
    common = {"B8A": "rededge", "B05": "rededge", "B06": "rededge", "B07": "rededge"}
    assets = {
        band: {
            "href": f"https://example.com/{band}.tif",
            "type": "image/tiff; application=geotiff; profile=cloud-optimized",
            "roles": ["data"],
            "eo:bands": [{"name": band, "common_name": common.get(band, "x")}],
        }
        for band in (*BANDS, "B01", "B09")
    }
    for name in ("SCL", "AOT", "WVP"):
        assets[name] = {"href": f"https://example.com/{name}.tif", "roles": ["data"]}
    item = earth_search_item(
        **{"datetime": DAY, "platform": "Sentinel-2B", "constellation": "Sentinel 2", **changes}
    )
    return {
        **item,
        "id": "S2B_MSIL2A_20220701T103641_R008_T32UPU_20220701T150000",
        "assets": assets,
    }


def dataspace_item(baseline: str = "05.11", numbers: dict | None = None) -> dict:
    """As the Copernicus Data Space has items: an asset a band and pixel size, numbers beside it."""
    if numbers is None:
        numbers = {"raster:scale": 0.0001, "raster:offset": -0.1, "nodata": 0}
    assets = {}
    for band in BANDS:
        for size in (10, 20, 60):
            finest = 10 if band in FINE else 20
            if size >= finest:
                sampling = "original" if size == finest else "downsampled"
                assets[f"{band}_{size}m"] = {
                    "href": f"s3://eodata/{band}_{size}m.jp2",
                    "type": "image/jp2",
                    "gsd": size,
                    "roles": ["data", "reflectance", f"sampling:{sampling}", f"gsd:{size}m"],
                    "bands": [{"name": band}],
                    **numbers,
                }
    for size in (20, 60):
        assets[f"SCL_{size}m"] = {"href": f"s3://eodata/SCL_{size}m.jp2", "roles": ["data"]}
    item = earth_search_item(**{"datetime": DAY, "processing:version": baseline})
    return {**item, "id": PRODUCT.format(baseline.replace(".", "")), "assets": assets}


def with_numbers(numbers: dict, **properties) -> dict:
    """Earth Search's item with other numbers in raster:bands."""
    item = earth_search_item(**properties)
    for asset in item["assets"].values():
        if "raster:bands" in asset:
            asset["raster:bands"] = [{"nodata": 0, "data_type": "uint16", **numbers}]
    return item


def raw_to_reflectance(folder, item: dict, **general) -> float:
    """Reflectance x 1e4 that raw 2500 stands for."""
    (entry,) = read_manifest(*write_stac(folder, [item], TILES, **general))
    (reader,) = entry.readers
    if reader.scale is None:
        assert not reader.offset
        return 2500.0
    return (2500 * reader.scale + reader.offset) * 1e4


OFFSET = {"scale": 0.0001, "offset": -0.1}
NONE = {"scale": 0.0001, "offset": 0}
OLD = {"datetime": "2019-05-13T10:50:31Z"}


@pytest.mark.parametrize(
    "item, expected",
    [
        (planetary_item(**{"s2:processing_baseline": "05.09"}), 1500),
        (planetary_item(**{"s2:processing_baseline": "04.00"}), 1500),
        (planetary_item(**{"s2:processing_baseline": "03.01", **OLD}), 2500),
        (planetary_item(**{"s2:processing_baseline": 5.0, **OLD}), 1500),  # processed again
        (planetary_item(**{"s2:product_uri": PRODUCT.format("0509") + ".SAFE"}), 1500),
        (planetary_item(**{"s2:product_uri": PRODUCT.format("0214") + ".SAFE"}), 2500),
        (planetary_item(**{"s2:datatake_id": "GS2B_20220701T103641_032395_N05.09"}), 1500),
        (planetary_item(**{"processing:version": "N0510"}), 1500),
        (planetary_item(**OLD), 2500),
        (with_numbers(OFFSET), 1500),
        (with_numbers(OFFSET, **{"s2:processing_baseline": "05.11"}), 1500),  # Collection 1
        (with_numbers(NONE, **OLD, **{"s2:processing_baseline": "02.14"}), 2500),
        (with_numbers({"scale": 0.0001}, **{"s2:processing_baseline": "05.00"}), 1500),
        (with_numbers(OFFSET, **{"earthsearch:boa_offset_applied": True}), 2500),
        (with_numbers(NONE, **{"earthsearch:boa_offset_applied": True}), 2500),
        (with_numbers(OFFSET, **{"earthsearch:boa_offset_applied": False}), 1500),
        (
            with_numbers(
                {},
                **{"sentinel:boa_offset_applied": True, "sentinel:processing_baseline": "04.00"},
            ),
            2500,
        ),
        (with_numbers({}, **{"sentinel:boa_offset_applied": False}), 1500),
        (with_numbers(OFFSET, **{"s2:processing_baseline": "99.99"}), 1500),
        (dataspace_item(), 1500),
        (dataspace_item("05.09", {"nodata": 0}), 1500),
        (dataspace_item("02.14", {"raster:scale": 0.0001, "raster:offset": 0}), 2500),
        ({**with_numbers(NONE), "id": "HLS.S30.T32UPU.2022182T103629.v2.0"}, 2500),
    ],
)
def test_raw_numbers_become_reflectance(tmp_path, item, expected):
    assert raw_to_reflectance(tmp_path, item) == pytest.approx(expected)


@pytest.mark.parametrize(
    "item, words",
    [
        (planetary_item(), "no processing baseline.*2022-01-25.*'scale' and 'offset'"),
        (
            with_numbers(NONE, **{"s2:processing_baseline": "05.09"}),
            "offset 0 contradicts processing baseline 05.09",
        ),
        (
            with_numbers(OFFSET, **{"s2:processing_baseline": "02.14"}),
            "offset -0.1 contradicts processing baseline 02.14",
        ),
        (
            planetary_item(
                **{"s2:processing_baseline": "02.14", "s2:product_uri": PRODUCT.format("0509")}
            ),
            r"processing baselines \['02.14', '05.09'\]",
        ),
        (
            with_numbers(
                OFFSET,
                **{"earthsearch:boa_offset_applied": True, "sentinel:boa_offset_applied": False},
            ),
            "true and false",
        ),
        (
            with_numbers(
                {"scale": 0.0001, "offset": -0.2}, **{"earthsearch:boa_offset_applied": True}
            ),
            "offset -0.2: expected -0.1 or 0",
        ),
        (planetary_item(**{"s2:processing_baseline": "99.99"}), "99.99 does not tell the offset"),
        (planetary_item(**{"s2:processing_baseline": "latest"}), "baseline 'latest': expected"),
        (with_numbers(OFFSET, **{"earthsearch:boa_offset_applied": "no"}), "true or false"),
        (with_numbers({"scale": 1, "offset": -1000}), "scale 1: expected about 0.0001"),
        (with_numbers({"scale": "0.0001"}), "scale: expected a number, found '0.0001'"),
        (with_numbers({**OFFSET, "unit": "W/m2/sr/um"}), "found the unit 'w/m2/sr/um'"),
        (
            {**planetary_item(), "id": PRODUCT.format("0509").replace("L2A", "L1C")},
            "expected reflectance of the ground .Level-2A., found Level-1C",
        ),
        (planetary_item(**{"s2:product_type": "S2MSI1C"}), "found Level-1C"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(tmp_path, item, words):
    with pytest.raises(InputError, match=r"items.json: features\[0\]: .*" + words):
        raw_to_reflectance(tmp_path, item)


def test_the_users_word_comes_before_that_of_the_item(tmp_path):
    item = planetary_item(**{"s2:processing_baseline": "05.09"})
    harmonised = {"scale": 0.0001, "offset": 0}
    assert raw_to_reflectance(tmp_path, item, skysense=harmonised) == pytest.approx(2500)
    item["properties"]["skysense"] = {"offset": -0.05}
    assert raw_to_reflectance(tmp_path, item, skysense=harmonised) == pytest.approx(2000)


def test_the_original_images_beside_offset_ones_have_no_offset_applied(tmp_path):
    item = with_numbers(
        OFFSET, **{"earthsearch:boa_offset_applied": True, "s2:processing_baseline": "05.09"}
    )
    names = [name for name in item["assets"] if name.endswith("-jp2") and name != "coastal-jp2"]
    jp2 = {name: name.removesuffix("-jp2") for name in names}
    assert raw_to_reflectance(tmp_path, item) == pytest.approx(2500)
    settings = {"bands": jp2}
    assert raw_to_reflectance(tmp_path, item, skysense=settings) == pytest.approx(1500)


def test_of_several_pixel_sizes_the_original_is_read(tmp_path):
    (entry,) = read_manifest(*write_stac(tmp_path, [dataspace_item()], TILES))
    (reader,) = entry.readers
    assert {band: file.name for band, file in reader.files.items()} == {
        band: f"{band}_{'10' if band in FINE else '20'}m.jp2" for band in BANDS
    }
    assert reader.mask == "s3://eodata/SCL_20m.jp2" and reader.nodata == 0


@pytest.mark.parametrize(
    "times, day",
    [
        ({"datetime": "2023-05-20T08:30:00+12:00"}, "2023-05-19"),
        ({"datetime": "2023-05-19T22:30:00-05:00"}, "2023-05-20"),
        ({"datetime": "2023-05-20T23:59:59.999Z"}, "2023-05-20"),
        ({"datetime": "2023-05-20T23:30:00"}, "2023-05-20"),
        (
            {
                "datetime": None,
                "start_datetime": "2023-05-20T01:00:00+02:00",
                "end_datetime": "2023-05-21T01:00:00+02:00",
            },
            "2023-05-19",
        ),
    ],
)
def test_a_date_is_the_day_in_utc(tmp_path, times, day):
    item = earth_search_item(**times)
    (entry,) = read_manifest(*write_stac(tmp_path, [item], TILES))
    assert day_of_text(entry.readers[0].date) == day


def test_a_planetary_series_of_two_baselines_comes_to_one_scale(tmp_path):
    """From files to a tile: a product of 2021 without the offset, and one of 2023 with it."""
    reflectance = {band: 300 + 200 * i for i, band in enumerate(BANDS)}
    items = []
    for day, baseline, offset in (("2021-05-20", "03.00", 0), ("2023-05-20", "05.09", 1000)):
        folder = tmp_path / day
        for band in BANDS:
            side = SCENE if band in FINE else SCENE // 2
            raw = np.full((1, side, side), reflectance[band] + offset, np.uint16)
            raw[0, 0, 0] = 5  # less than the offset
            write(folder / f"{band}.tif", raw)
        write(folder / "SCL.tif", clouds())
        item = copy.deepcopy(planetary_item(**{"s2:processing_baseline": baseline}))
        item["properties"]["datetime"] = f"{day}T10:30:31Z"
        for name, asset in item["assets"].items():
            asset["href"] = f"./{day}/{name}.tif"
        items.append(item)
    (entry,) = read_manifest(*write_stac(tmp_path, items, TILES))
    for reader in entry.readers:
        reader.check()
    tile, _ = build_tile(Entry("a", entry.readers, "", ""))
    assert tile.dates["ms"] == ["2021-05-20", "2023-05-20"]
    for i, band in enumerate(BANDS):
        np.testing.assert_array_equal(tile.arrays["ms"][:, i, 8:, 8:], reflectance[band])
    assert tile.arrays["ms"][1, 0, 0, 0] == DARK and tile.arrays["ms"][0, 0, 0, 0] == 5


def test_bands_of_one_item_may_have_other_numbers(tmp_path):
    item = with_numbers(OFFSET)
    item["assets"]["nir08"]["raster:bands"] = [{"scale": 0.0002, "offset": 0, "nodata": "nan"}]
    (entry,) = read_manifest(*write_stac(tmp_path, [item], TILES))
    numbers = entry.readers[0].band_numbers
    assert entry.readers[0].scale is None and set(numbers) == set(BANDS)
    assert numbers["B02"] == {"scale": 0.0001, "offset": -0.1, "nodata": 0}
    assert numbers["B8A"]["scale"] == 0.0002 and np.isnan(numbers["B8A"]["nodata"])


def test_an_offset_of_some_bands_says_nothing_of_the_others(tmp_path):
    """Without a baseline nobody knows whether they have it too."""
    item = with_numbers(OFFSET, **OLD)
    silent = [asset for asset in item["assets"].values() if "raster:bands" in asset][:4]
    for asset in silent:
        asset["raster:bands"] = [{"nodata": 0}]
    with pytest.raises(
        InputError, match=r"features\[0\]: the item gives an offset for .* none for"
    ):
        raw_to_reflectance(tmp_path, item)
    item["properties"]["s2:processing_baseline"] = "05.09"
    assert raw_to_reflectance(tmp_path, item) == pytest.approx(1500)


def test_all_mistakes_of_ten_items_are_named_at_once(tmp_path):
    wrong = planetary_item(license=None, providers=[])
    del wrong["assets"]["B03"]
    items = [dataspace_item(), *[copy.deepcopy(wrong) for _ in range(12)]]
    with pytest.raises(InputError) as caught:
        read_manifest(*write_stac(tmp_path, items, TILES))
    lines = str(caught.value).splitlines()
    assert len(lines) == 11
    for number, line in enumerate(lines[:10], 1):
        assert f"items.json: features[{number}]: 3 mistakes: (1) licence: " in line
        assert "(2) attribution: " in line and "(3) band B03: expected one asset" in line
