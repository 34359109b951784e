"""All forms of a manifest say the same, and a wrong value gives one clear line."""

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from data.errors import InputError
from data.prepare.manifest.read import read_manifest
from data.prepare.place.spot import Centre, Footprint
from tests.paths import SAMPLES
from tests.unit.manifests import (
    IMAGE,
    LINE,
    rows_of,
    sample_records,
    write_csv,
    write_lines,
    write_parquet,
)


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
    assert all(entry.readers == found[0][0].readers for (entry,) in found)


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
