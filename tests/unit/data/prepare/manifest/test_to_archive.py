"""Sentinel-2 from the files of two providers to an archive: reflectance, masks and dates."""

from pathlib import Path

import numpy as np
import pytest
import shapely
from pyproj import Transformer

from data.prepare.run import prepare
from data.tiles.archive import read_tile
from tests.unit.data.prepare.manifest.test_stac_numbers import planetary_item
from tests.unit.data.prepare.readers.scene import (
    BANDS,
    FINE,
    GRID,
    SCENE,
    clear,
    clouds,
    expected,
    numbers,
    write,
)
from tests.unit.data.prepare.readers.test_sentinel2_safe import make_safe
from tests.unit.manifests import write_lines, write_stac


def middle() -> list[float]:
    """The grid's centre in degrees, from its corner and size."""
    to_degrees = Transformer.from_crs(32632, 4326, always_xy=True)
    half = GRID.cells * 10 / 2
    return list(to_degrees.transform(GRID.x0 + half, GRID.y0 - half))


def check(archive: Path, day: str) -> None:
    """The plane of the scene, and its clouds, at the grid's cells."""
    tile = read_tile(archive, "a")
    assert tile.dates["ms"] == [day] and tile.transform[2::3] == (GRID.x0, GRID.y0)
    valid = tile.valid["ms"][0]
    np.testing.assert_array_equal(valid, clear())
    for i, band in enumerate(BANDS):
        array = tile.arrays["ms"][0, i].astype(float)
        np.testing.assert_allclose(array[valid], expected(band)[valid], atol=0.51)


@pytest.mark.parametrize("baseline, offset", [("02.14", None), ("05.11", -1000)])
def test_a_product_of_the_data_space(tmp_path, baseline, offset):
    safe = make_safe(tmp_path, baseline, offset)
    line = {
        "key": "a",
        "licence": "x",
        "attribution": "ESA",
        "centre": middle(),
        "cells": GRID.cells,
        "sources": [{"reader": "sentinel2_safe", "path": safe.name}],
    }
    prepare(write_lines(tmp_path / "m.jsonl", [line]), tmp_path / "out", workers=0, say=str)
    check(tmp_path / "out", "2023-06-11")


@pytest.mark.parametrize("baseline, offset", [("02.14", 0), ("05.11", 1000)])
def test_an_item_of_the_planetary_computer(tmp_path, baseline, offset):
    for band in BANDS:
        raw = numbers(band, SCENE if band in FINE else SCENE // 2)[None] + offset
        write(tmp_path / f"{band}.tif", raw.astype(np.uint16))
    write(tmp_path / "SCL.tif", clouds())
    item = planetary_item(**{"s2:processing_baseline": baseline})
    for name, asset in item["assets"].items():
        asset["href"] = f"./{name}.tif"
    item["properties"]["datetime"] = "2023-06-12T00:30:00+02:00"
    lon, lat = middle()
    item["geometry"] = shapely.geometry.mapping(shapely.Point(lon, lat).buffer(0.1))
    tiles = f"key,lon,lat,cells\na,{lon},{lat},{GRID.cells}\n"
    path, tile_list = write_stac(tmp_path, [item], tiles)
    prepare(path, tmp_path / "out", tiles=tile_list, workers=0, say=str)
    check(tmp_path / "out", "2023-06-11")
