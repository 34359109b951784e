"""All forms of a manifest say the same, and whatever else stands in the file gives one clear line."""

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import pytest
import rasterio
import shapely
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Transformer

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.files import Remote
from data.prepare.contract.spot import Centre, Footprint
from data.prepare.manifest.entry import Entry
from data.prepare.manifest.read import read_manifest
from data.prepare.readers.geotiff import GeoTiffBands
from tests.paths import SAMPLES

TILE = ("key", "licence", "attribution")
JUNK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def sample_records() -> list[dict]:
    """The samples' manifest with absolute paths."""

    def absolute(value, key):
        if key in ("path", "path_20m", "like"):
            return str(SAMPLES / value)
        return [str(SAMPLES / path) for path in value] if key == "paths" else value

    records = [json.loads(line) for line in (SAMPLES / "manifest.jsonl").read_text().splitlines()]
    return [
        {
            **record,
            "sources": [
                {key: absolute(value, key) for key, value in source.items()}
                for source in record["sources"]
            ],
        }
        for record in records
    ]


def rows_of(records: list[dict]) -> list[dict]:
    """Long form: one row a source; what belongs to the tile stands in its first row only."""
    rows = []
    for record in records:
        for i, source in enumerate(record["sources"]):
            tile = {
                name: value
                for name, value in record.items()
                if name != "sources" and (i == 0 or name == "key")
            }
            rows.append({**tile, **source})
    return rows


def write_csv(path: Path, rows: list[dict]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def text(value):
        if isinstance(value, list):
            return ";".join(map(str, value))
        return json.dumps(value) if isinstance(value, dict) else str(value)

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows([{name: text(value) for name, value in row.items()} for row in rows])
    return path


def write_parquet(path: Path, rows: list[dict], geometry=None, crs=None) -> Path:
    """A table with real lists and structs; with ``geometry``, one polygon a row, GeoParquet."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    if geometry:
        column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column |= {} if crs is None else {"crs": pyproj.CRS(crs).to_json_dict()}
        table = table.append_column(
            "geometry", pa.array([shapely.to_wkb(shape) for shape in geometry], pa.binary())
        )
        table = table.replace_schema_metadata(
            {
                "geo": json.dumps(
                    {
                        "version": "1.1.0",
                        "primary_column": "geometry",
                        "columns": {"geometry": column},
                    }
                )
            }
        )
    pq.write_table(table, path)
    return path


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def test_the_samples_as_lines_csv_and_parquet_are_the_same(tmp_path):
    records = sample_records()
    lines = read_manifest(write_lines(tmp_path / "m.jsonl", records))
    assert lines == read_manifest(SAMPLES / "manifest.jsonl") and len(lines) == 25
    assert read_manifest(write_csv(tmp_path / "m.csv", rows_of(records))) == lines
    assert read_manifest(write_parquet(tmp_path / "m.parquet", rows_of(records))) == lines


def test_places_in_all_forms_give_one_grid(tmp_path):
    """A patch of 64 cells by its centre, by an outline in degrees, and by one in metres."""
    image = {
        "reader": "geotiff_image",
        "path": "a.tif",
        "modality": "sar",
        "bands": ["VV", "VH"],
        "date": "2020-01-01",
    }
    tile = {"key": "a", "licence": "x", "attribution": "y"}
    back = Transformer.from_crs(32631, 4326, always_xy=True)
    lon, lat = back.transform(501_680, 5_629_360)
    square = shapely.box(501_360, 5_629_040, 502_000, 5_629_680)
    degrees = shapely.transform(square, lambda xy: np.stack(back.transform(*xy.T), axis=1))
    spots = {
        "centre": {"centre": [lon, lat], "cells": 64},
        "footprint": {"footprint": shapely.geometry.mapping(degrees)},
        "bounds": {"footprint": {"bounds": list(square.bounds), "crs": "EPSG:32631"}},
    }
    found = [
        read_manifest(
            write_lines(tmp_path / f"{name}.jsonl", [{**tile, "sources": [image], **spot}])
        )
        for name, spot in spots.items()
    ]
    row = {**tile, **image}
    found += [
        read_manifest(
            write_csv(tmp_path / "centre.csv", [{**row, "lon": lon, "lat": lat, "cells": 64}])
        ),
        read_manifest(write_csv(tmp_path / "wkt.csv", [{**row, "footprint": degrees.wkt}])),
        read_manifest(
            write_parquet(
                tmp_path / "centre.parquet", [{**row, "lon": lon, "lat": lat, "cells": 64}]
            )
        ),
        read_manifest(write_parquet(tmp_path / "degrees.geoparquet", [row], [degrees])),
        read_manifest(write_parquet(tmp_path / "metres.parquet", [row], [square], 32631)),
    ]
    kinds = {type(entry.spot) for (entry,) in found}
    grids = {
        (grid.crs.to_epsg(), grid.x0, grid.y0, grid.cells)
        for grid in (entry.spot.grid() for (entry,) in found)
    }
    assert kinds == {Centre, Footprint} and grids == {(32631, 501_360.0, 5_629_680.0, 64)}
    assert len({entry.readers for (entry,) in found}) == 1


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
            back = Transformer.from_crs(corners, 4326, always_xy=True)
            outline = shapely.transform(
                shapely.box(*bounds), lambda xy: np.stack(back.transform(*xy.T), axis=1)
            )
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


def earth_search_item(**changes) -> dict:
    """An item as the public catalogue of Sentinel-2 COGs has them, shortened."""
    names = {
        "blue": "blue",
        "green": "green",
        "red": "red",
        "rededge1": "rededge",
        "rededge2": "rededge",
        "rededge3": "rededge",
        "nir": "nir",
        "nir08": "nir08",
        "swir16": "swir16",
        "swir22": "swir22",
        "coastal": "coastal",
    }
    numbers = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
    assets = {
        name: {
            "href": f"https://example.com/S2/{name}.tif",
            "type": "image/tiff; application=geotiff",
            "eo:bands": [{"name": name, "common_name": common}],
            "raster:bands": numbers,
            "roles": ["data", "reflectance"],
        }
        for name, common in names.items()
    }
    assets |= {
        f"{name}-jp2": {**asset, "href": f"s3://bucket/{name}.jp2", "type": "image/jp2"}
        for name, asset in assets.items()
    }
    assets["visual"] = {
        "href": "https://example.com/S2/TCI.tif",
        "roles": ["visual"],
        "eo:bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}],
    }
    assets["scl"] = {"href": "https://example.com/S2/SCL.tif", "roles": ["data", "reflectance"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A",
        "assets": assets,
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[8, 48], [10, 48], [10, 50], [8, 50], [8, 48]]],
        },
        "properties": {
            "datetime": "2022-07-01T10:36:41.123Z",
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "license": "proprietary",
            "providers": [{"name": "ESA"}, {"name": "Element 84"}],
            **changes,
        },
    }


def write_stac(folder: Path, items: list[dict], tiles: str, **general) -> tuple[Path, Path]:
    (folder / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items, **general})
    )
    (folder / "tiles.csv").write_text(tiles)
    return folder / "items.json", folder / "tiles.csv"


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
        "2022-07-01",
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
        and reader.date == "2021-05-06"
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


IMAGE = {
    "reader": "geotiff_image",
    "path": "a.tif",
    "modality": "hr",
    "bands": ["R", "G", "B"],
    "date": "2020-05-01",
}
LINE = {"key": "a", "licence": "CC0-1.0", "attribution": "nobody", "sources": [IMAGE]}


@pytest.mark.parametrize(
    "change, words",
    [
        ({"centre": [9.0, 48.0]}, "m.jsonl:1: centre and cells need each other"),
        ({"centre": [48.0, 99.0], "cells": 8}, "longitude first"),
        ({"centre": [9.0], "cells": 8}, "expected .lon, lat. in degrees"),
        ({"centre": [9.0, True], "cells": 8}, "expected .lon, lat. in degrees"),
        ({"centre": [9.0, 48.0], "cells": 0}, "whole number of 10 m cells above 0"),
        (
            {"centre": [9.0, 48.0], "cells": 8, "footprint": {}},
            "either centre and cells or footprint",
        ),
        ({"footprint": {"type": "Point", "coordinates": [9, 48]}}, "expected a GeoJSON polygon"),
        ({"footprint": {"bounds": [1, 2, 3]}}, "footprint: expected"),
        ({"footprint": {"bounds": [500000, 0, 500100, 100]}}, "give the crs"),
        (
            {"footprint": {"bounds": [500000, 0, 500100, 100], "crs": "EPSG:1"}},
            "crs 'EPSG:1' is unknown",
        ),
        (
            {"footprint": {"bounds": [5e9, 0, 6e9, 100], "crs": "EPSG:32632"}},
            "nowhere in EPSG:32632",
        ),
        ({"sources": [{**IMAGE, "scale": True}]}, "scale: expected a number, found True"),
        (
            {"sources": [{**IMAGE, "masked": ["x"]}]},
            "masked.0.: expected a whole number, found 'x'",
        ),
        ({"sources": [{**IMAGE, "path": ""}]}, "path: expected the path of a file"),
        ({"sources": [{**IMAGE, "reader": []}]}, "reader .. is unknown"),
        (
            {"sources": [{"reader": "hdf5_series", "path": "https://example.com/a.h5"}]},
            "path: expected a file of this file system .fetch it first., found 'https:",
        ),
    ],
)
def test_wrong_places_and_values(tmp_path, change, words):
    with pytest.raises(InputError, match=words):
        read_manifest(write_lines(tmp_path / "m.jsonl", [{**LINE, **change}]))


@pytest.mark.parametrize(
    "text, words",
    [
        ("key,reader\na\n", "m.csv:2: expected 2 cells as in the header, found 1"),
        ("key,pathh\na,b\n", "m.csv:1: unknown column 'pathh' .did you mean 'path"),
        ("key,key\na,b\n", "the column 'key' stands there twice"),
        ("reader,path\nosm,b\n", "m.csv:1: expected a column 'key'"),
        ("key,licence\na,x\na,y\n", "m.csv:3: licence is 'y', an earlier row of tile 'a' says 'x'"),
        ("key,lon,lat,cells\na,nine,48,8\n", "m.csv:2: lon: expected a number, found 'nine'"),
        ("key,cells\na,1.5\n", "m.csv:2: cells: expected a whole number"),
        ("key,footprint\na,POLYGON((\n", "m.csv:2: footprint: expected a polygon in WKT"),
        ("key,tags\na,{\n", "m.csv:2: tags: not valid JSON"),
        ('key,tags\na,"b\n', "m.csv:.*: not a CSV table"),
        ("", "empty manifest"),
        ("key,reader\n", "empty manifest"),
    ],
)
def test_wrong_csv(tmp_path, text, words):
    (tmp_path / "m.csv").write_text(text)
    with pytest.raises(InputError, match=words):
        read_manifest(tmp_path / "m.csv")


def test_forms_that_are_none(tmp_path):
    for name, tiles, words in (
        ("m.txt", None, "ends in .jsonl"),
        ("m.json", None, "give a list of tiles"),
        ("m.jsonl", "tiles.csv", "names its tiles itself"),
        ("m.json", "t.csv", "no such file"),
    ):
        (tmp_path / name).write_text('{"type": "FeatureCollection", "features": []}')
        with pytest.raises(InputError, match=words):
            read_manifest(tmp_path / name, None if tiles is None else tmp_path / tiles)
    with pytest.raises(InputError, match="gone.csv: expected a manifest"):
        read_manifest(tmp_path / "gone.csv")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)
KEYS = [
    "key",
    "sources",
    "licence",
    "attribution",
    "centre",
    "cells",
    "footprint",
    "reader",
    "path",
    "bands",
    "tags",
    "legend",
    "files",
    "scale",
    "masked",
    "lon",
    "lat",
    "type",
    "features",
    "properties",
    "geometry",
    "assets",
    "coordinates",
    "skysense",
    "datetime",
]


def read_or_refuse(*files: Path) -> None:
    """Entries, or one line that names the file."""
    try:
        assert all(isinstance(entry, Entry) for entry in read_manifest(*files))
    except InputError as error:
        assert any(file.name in str(error) for file in files) and "\n" not in str(error)


@JUNK
@given(data=st.data(), suffix=st.sampled_from([".jsonl", ".csv", ".parquet", ".json", ".geojson"]))
def test_random_bytes_and_text(tmp_path, data, suffix):
    junk = data.draw(
        st.binary(max_size=200)
        | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
        | values.map(lambda value: json.dumps(value).encode())
    )
    tiles = tmp_path / "tiles.csv"
    tiles.write_text("key,lon,lat,cells\na,9,48,8\n")
    (tmp_path / f"m{suffix}").write_bytes(junk)
    read_or_refuse(tmp_path / f"m{suffix}", *([tiles] if suffix in (".json", ".geojson") else []))


@JUNK
@given(data=st.data(), form=st.sampled_from(["lines", "csv", "stac", "tiles"]))
def test_one_value_replaced_by_any_other(tmp_path, data, form):
    """Walk into a sound manifest and replace, drop or add something anywhere."""
    point = {
        "properties": {"key": "a", "cells": 8},
        "geometry": {"type": "Point", "coordinates": [9, 48.5]},
    }
    sound = {
        "lines": LINE | {"centre": [9.0, 48.0], "cells": 8},
        "csv": rows_of([LINE])[0],
        "stac": {"type": "FeatureCollection", "features": [earth_search_item()]},
        "tiles": {"type": "FeatureCollection", "features": [point]},
    }
    broken = json.loads(json.dumps(sound[form]))
    at = broken
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys)) if keys else None
        if key is None or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    change = data.draw(st.sampled_from(["replace", "drop", "add"]))
    if change == "replace" and key is not None:
        at[key] = data.draw(values)
    elif change == "drop" and key is not None:
        del at[key]
    elif isinstance(at, dict):
        at[data.draw(st.sampled_from(KEYS) | st.text(max_size=6))] = data.draw(values)
    if form == "lines":
        (tmp_path / "m.jsonl").write_text(json.dumps(broken))
        read_or_refuse(tmp_path / "m.jsonl")
    elif form == "csv":
        read_or_refuse(write_csv(tmp_path / "m.csv", [broken or {"key": 1}]))
    else:
        both = {**sound, form: broken}
        (tmp_path / "items.json").write_text(json.dumps(both["stac"]))
        (tmp_path / "tiles.geojson").write_text(json.dumps(both["tiles"]))
        read_or_refuse(tmp_path / "items.json", tmp_path / "tiles.geojson")


@JUNK
@given(data=st.data())
def test_parquet_with_any_columns_and_types(tmp_path, data):
    kinds = {
        "text": pa.string(),
        "whole": pa.int64(),
        "real": pa.float64(),
        "bytes": pa.binary(),
        "list": pa.list_(pa.string()),
        "bool": pa.bool_(),
        "struct": pa.struct([("a", pa.string())]),
    }
    some = {
        "text": st.text(max_size=5),
        "whole": st.integers(-(2**63), 2**63 - 1),
        "real": st.floats(),
        "bytes": st.binary(max_size=9),
        "list": st.lists(st.text(max_size=3), max_size=2),
        "bool": st.booleans(),
        "struct": st.fixed_dictionaries({"a": st.text(max_size=3)}),
    }
    names = data.draw(
        st.lists(st.sampled_from([*KEYS, "geometry"]), min_size=1, max_size=6, unique=True)
    )
    columns = {}
    for name in names:
        kind = data.draw(st.sampled_from(sorted(kinds)))
        columns[name] = pa.array(
            data.draw(st.lists(st.none() | some[kind], min_size=2, max_size=2)), kinds[kind]
        )
    table = pa.table(columns)
    if data.draw(st.booleans()):
        geo = {
            "primary_column": "geometry",
            "columns": {"geometry": {"encoding": "WKB"}},
        } | data.draw(
            st.dictionaries(st.sampled_from(["primary_column", "columns"]), values, max_size=1)
        )
        table = table.replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, tmp_path / "m.parquet")
    read_or_refuse(tmp_path / "m.parquet")


@JUNK
@given(
    share=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
    form=st.sampled_from(["m.csv", "m.parquet", "m.jsonl"]),
)
def test_torn_and_flipped_files(tmp_path, share, flips, form):
    rows = rows_of([LINE, {**LINE, "key": "b"}])
    path = tmp_path / form
    write = {"m.csv": write_csv, "m.parquet": write_parquet, "m.jsonl": write_lines}[form]
    write(path, [LINE, {**LINE, "key": "b"}] if write is write_lines else rows)
    torn = bytearray(path.read_bytes())
    for at, change in flips:
        torn[int(at * len(torn))] ^= change
    path.write_bytes(torn if flips else torn[: int(share * len(torn))])
    read_or_refuse(path)
