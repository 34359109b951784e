"""STAC item collections and lists of tiles: the tiles that are made, and what is refused."""

import json

import numpy as np
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.days import day_of_text
from data.prepare.contract.files import Remote
from data.prepare.manifest.read import read_manifest
from data.prepare.place.spot import Centre
from data.prepare.readers.geotiff import GeoTiffBands
from tests.unit.manifests import (
    earth_search_item,
    sample_records,
    write_lines,
    write_stac,
)


def in_degrees(shape: shapely.Geometry, crs: CRS) -> shapely.Geometry:
    back = Transformer.from_crs(crs, 4326, always_xy=True)
    return shapely.transform(shape, lambda xy: np.stack(back.transform(*xy.T), axis=1))


@pytest.fixture
def catalogue(tmp_path):
    """The single-date Sentinel samples as a STAC item collection of one-band files, and the tiles
    beside it; the same tiles as JSON lines over the files as they are."""
    items, tiles, records = [], [], []
    for record in sample_records():
        if len(record["sources"]) != 3 or "single_date" not in record["sources"][1]["path"]:
            continue
        folder = tmp_path / record["key"]
        folder.mkdir()
        sources = record["sources"][1:]
        for source in sources:
            with rasterio.open(source["path"]) as file:
                profile, raw = file.profile, file.read()
                bounds, corners = file.bounds, file.crs
            profile.update(count=1)
            assets = {}
            for band, plane in zip(source["bands"], raw):
                name = band.replace("/", "-")
                with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
                    file.write(plane[None])
                assets[name.lower()] = {"href": f"{record['key']}/{name}.tif", "roles": ["data"]}
                if source["modality"] == "ms":
                    assets[name.lower()]["eo:bands"] = [{"name": band}]
            outline = in_degrees(shapely.box(*bounds), corners)
            if source["modality"] == "ms":
                tiles.append(
                    {
                        "type": "Feature",
                        "properties": {"key": record["key"]},
                        "geometry": shapely.geometry.mapping(outline),
                    }
                )
            items.append(
                {
                    "type": "Feature",
                    "stac_version": "1.0.0",
                    "id": folder.name,
                    "links": [],
                    "assets": assets,
                    "geometry": shapely.geometry.mapping(outline),
                    "bbox": list(outline.bounds),
                    "properties": {
                        "datetime": source["date"] + "T10:30:31Z",
                        "license": "CC-BY-4.0",
                        "constellation": "sentinel-2"
                        if source["modality"] == "ms"
                        else "Sentinel-1",
                        "skysense": {"attribution": record["attribution"]},
                    },
                }
            )
        records.append(
            {
                **record,
                "sources": [{**source, "date_accuracy": "day"} for source in sources],
                "footprint": tiles[-1]["geometry"],
            }
        )
    (tmp_path / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items})
    )
    (tmp_path / "tiles.geojson").write_text(
        json.dumps({"type": "FeatureCollection", "features": tiles})
    )
    return (
        tmp_path / "items.json",
        tmp_path / "tiles.geojson",
        write_lines(tmp_path / "same.jsonl", records),
    )


def test_a_stac_collection_makes_the_tiles_of_its_files(catalogue):
    items, tiles, lines = catalogue
    found, same = read_manifest(items, tiles), read_manifest(lines)
    assert [entry.key for entry in found] == [entry.key for entry in same] and len(found) == 8
    for entry, other in zip(found, same):
        (tile, _), (twin, _) = build_tile(entry), build_tile(other)
        assert (
            tile.modalities == ["ms", "sar"]
            and tile.transform == twin.transform
            and tile.dates == twin.dates
        )
        assert (tile.licence, tile.attribution) == (twin.licence, twin.attribution)
        for name in ("ms", "sar"):
            np.testing.assert_array_equal(tile.arrays[name], twin.arrays[name])
            np.testing.assert_array_equal(tile.valid[name], twin.valid[name])


@pytest.mark.parametrize("applied, offset", [(False, -0.1), (True, 0.0)])
def test_public_cogs_by_common_names(tmp_path, applied, offset):
    files = write_stac(
        tmp_path,
        [earth_search_item(**{"earthsearch:boa_offset_applied": applied})],
        "key,lon,lat,cells\na,9.1,48.7,64\nb,9.2,48.8,32\n",
    )
    first, second = read_manifest(*files)
    (reader,) = first.readers
    assert reader is second.readers[0] and isinstance(reader, GeoTiffBands)
    assert (first.licence, first.attribution, first.spot) == (
        "proprietary",
        "ESA, Element 84",
        Centre(9.1, 48.7, 64),
    )
    assert reader.files == {
        band: Remote(f"https://example.com/S2/{name}.tif")
        for band, name in (
            ("B02", "blue"),
            ("B03", "green"),
            ("B04", "red"),
            ("B05", "rededge1"),
            ("B06", "rededge2"),
            ("B07", "rededge3"),
            ("B08", "nir"),
            ("B8A", "nir08"),
            ("B11", "swir16"),
            ("B12", "swir22"),
        )
    }
    assert (reader.scale, reader.offset, reader.nodata, reader.date) == (
        1e-4,
        offset,
        0.0,
        "2022-07-01T10:36:41.123000",
    )
    assert reader.mask == "https://example.com/S2/SCL.tif" and reader.masked == (
        0,
        1,
        3,
        8,
        9,
        10,
        11,
    )


def test_stac_with_settings_of_its_own(tmp_path):
    item = {
        "type": "Feature",
        "stac_version": "1.0.0",
        "assets": {"photo": {"href": "a.tif"}},
        "geometry": {"type": "Point", "coordinates": [9, 48]},
        "properties": {
            "datetime": None,
            "start_datetime": "2021-05-06T00:00:00Z",
            "end_datetime": "2021-05-07T00:00:00Z",
        },
    }
    settings = {
        "modality": "hr",
        "bands": {"photo": ["R", "G", "B", "NIR"]},
        "licence": "CC0-1.0",
        "attribution": "me",
    }
    (entry,) = read_manifest(
        *write_stac(tmp_path, [item], "key,lon,lat,cells\na,9,48,8\n", skysense=settings)
    )
    (reader,) = entry.readers
    assert (
        reader.path == tmp_path / "a.tif"
        and reader.bands == ("R", "G", "B", "NIR")
        and day_of_text(reader.date) == "2021-05-06"
    )


@pytest.mark.parametrize(
    "link, folder",
    [
        ("https://example.com/catalogue/S2A.json", "https://example.com/catalogue/"),
        ("s3://bucket/catalogue/S2A.json", "s3://bucket/catalogue/"),
    ],
)
def test_relative_addresses_start_at_the_link_of_an_item_to_itself(tmp_path, link, folder):
    item = earth_search_item()
    for name, asset in item["assets"].items():
        asset["href"] = f"./images/{name}.tif"
    tiles = "key,lon,lat,cells\na,9.1,48.7,64\n"
    (entry,) = read_manifest(*write_stac(tmp_path, [item], tiles))
    assert entry.readers[0].files["B02"] == tmp_path / "images/blue.tif"
    item["links"] = [{"rel": "self", "href": link}]
    (entry,) = read_manifest(*write_stac(tmp_path, [item], tiles))
    assert entry.readers[0].files["B02"] == Remote(f"{folder}images/blue.tif")


@pytest.mark.parametrize(
    "change, tiles, words",
    [
        (
            {"constellation": "landsat", "platform": "landsat-8"},
            "key,lon,lat,cells\na,9,49,8\n",
            "the sensor is None",
        ),
        (
            {"datetime": None},
            "key,lon,lat,cells\na,9,49,8\n",
            "features.0.: expected a STAC item with a time .*If datetime is None",
        ),
        ({"license": None}, "key,lon,lat,cells\na,9,49,8\n", "licence: the item does not say it"),
        (
            {"skysense": {"bandz": {}}},
            "key,lon,lat,cells\na,9,49,8\n",
            "unknown key 'bandz' .did you mean 'bands'",
        ),
        (
            {"skysense": {"mask": "scll"}},
            "key,lon,lat,cells\na,9,49,8\n",
            "no asset 'scll' .did you mean 'scl'",
        ),
        (
            {"skysense": {"bands": {"blue": "B02"}}},
            "key,lon,lat,cells\na,9,49,8\n",
            "band B03: expected one asset",
        ),
        (
            {},
            "key,lon,lat,cells\na,9,52,8\n",
            "tiles.csv:2: no item of items.json touches this tile",
        ),
        ({}, "key,lon,lat\na,9,49\n", "tiles.csv:2: centre and cells need each other"),
        ({}, "key\na\n", "tiles.csv:2: expected centre and cells, or a footprint"),
        (
            {},
            "kee,lon,lat,cells\na,9,49,8\n",
            "tiles.csv:1: unknown column 'kee' .did you mean 'key'",
        ),
        ({}, "key,lon,lat,cells\na,9,49,8\na,9,49,8\n", "key 'a' stands on line 2 already"),
    ],
)
def test_wrong_stac(tmp_path, change, tiles, words):
    with pytest.raises(InputError, match=words):
        read_manifest(*write_stac(tmp_path, [earth_search_item(**change)], tiles))


def ring(west: float, east: float) -> list:
    return [[[west, -17], [east, -17], [east, -16], [west, -16], [west, -17]]]


@pytest.mark.parametrize(
    "kind, coordinates",
    [
        ("Polygon", ring(179.5, -179.5)),
        ("Polygon", ring(179.5, 180.5)),
        ("Polygon", ring(-180.5, -179.5)),
        ("MultiPolygon", [ring(179.5, 180), ring(-180, -179.5)]),
    ],
    ids=["ring that jumps", "beyond 180", "beyond -180", "two parts"],
)
@pytest.mark.parametrize("lon", [179.6, 180, -180, -179.6, 180.3])
def test_items_and_tiles_meet_across_the_180th_meridian(tmp_path, kind, coordinates, lon):
    item = earth_search_item()
    item["geometry"] = {"type": kind, "coordinates": coordinates}
    (entry,) = read_manifest(
        *write_stac(tmp_path, [item], f"key,lon,lat,cells\na,{lon},-16.5,64\n")
    )
    assert len(entry.readers) == 1
    for other in (179.3, -179.3, 0):
        tiles = f"key,lon,lat,cells\na,{other},-16.5,64\n"
        with pytest.raises(InputError, match="no item of items.json touches this tile"):
            read_manifest(*write_stac(tmp_path, [item], tiles))


def test_items_and_tiles_at_a_pole(tmp_path):
    item = earth_search_item()
    cap = [[-180, 85], [-90, 84], [0, 85], [90, 84], [180, 85]]
    item["geometry"] = {"type": "Polygon", "coordinates": [[*cap, [180, 90], [-180, 90], cap[0]]]}
    for lat in (90, 89.99, 86):
        tiles = f"key,lon,lat,cells\na,20,{lat},64\n"
        assert len(list(read_manifest(*write_stac(tmp_path, [item], tiles)))) == 1
    item["geometry"]["coordinates"] = [[*cap[:-1], cap[0]]]
    with pytest.raises(InputError, match="goes round a pole; add corners at latitude 90"):
        read_manifest(*write_stac(tmp_path, [item], tiles))
    item["geometry"]["coordinates"] = [[[48, 99], [49, 99], [49, 98], [48, 99]]]
    with pytest.raises(InputError, match="geometry: expected degrees, longitude first"):
        read_manifest(*write_stac(tmp_path, [item], tiles))
