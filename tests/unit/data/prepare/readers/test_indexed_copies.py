"""Indexed copies of files without a spatial index: made once, whole, and anew for another file."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import osmium
import pytest
import shapely
from osmium.osm import mutable

from data.errors import InputError
from data.prepare.readers import vector_labels
from data.prepare.readers.vector_labels import VectorLabels
from data.tiles.classes import INDEX
from tests.paths import ROOT
from tests.unit.maps import (
    GRID,
    MAP,
    lonlat,
    write_geojson,
    write_geopackage,
    write_osm,
)


def draw(path, grid=GRID, **options):
    reader = VectorLabels(path, **options)
    reader.check()
    assert reader.place() is None
    (labels,) = reader.read(grid)
    return labels.draw(grid)


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    return draw(write_geojson(tmp_path_factory.mktemp("map") / "a.geojson", MAP))


def test_an_indexed_copy_is_made_once_and_anew_for_another_file(tmp_path, expected, monkeypatch):
    path = write_osm(tmp_path / "a.osm.pbf", MAP)
    copy = vector_labels.osm_index.indexed(path, (), {})
    first = copy.stat().st_mtime_ns
    np.testing.assert_array_equal(draw(path), expected)
    assert json.loads(copy.with_suffix(".json").read_text()) == {
        "shapes": 15,
        "mended": 0,
        "skipped": 0,
        "classless": 2,  # a demolished building and a culvert
        "incomplete_ways": 0,
        "incomplete_relations": 0,
    }
    assert copy.stat().st_mtime_ns == first and len(list(tmp_path.glob("*.fgb"))) == 1
    path.unlink()
    write_osm(path, MAP[:5])
    assert (draw(path) == INDEX["road"]).sum() == 0 and len(list(tmp_path.glob("*.fgb"))) == 2


def test_a_large_geojson_file_is_indexed_and_gives_the_same_raster(tmp_path, expected, monkeypatch):
    path = write_geojson(tmp_path / "a.geojson", MAP)
    assert vector_labels.osm_index.indexed(path, (), {}) is None
    monkeypatch.setattr(vector_labels.osm_index, "SMALL", 100)
    np.testing.assert_array_equal(draw(path), expected)
    assert len(list(tmp_path.glob("*.fgb"))) == 1
    assert (
        vector_labels.osm_index.indexed(write_geopackage(tmp_path / "a.gpkg", MAP), (), {}) is None
    )
    np.testing.assert_array_equal(
        draw(path, tags={"natural": "wood"}), expected
    )  # other options, another copy
    assert len(list(tmp_path.glob("*.fgb"))) == 2


COPY = """
import sys
from pathlib import Path
from data.osm.index import indexed
print(indexed(Path(sys.argv[1]), (), {}))
"""


def copying(path):
    return subprocess.Popen(
        [sys.executable, "-c", COPY, path], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def test_several_processes_make_one_copy(tmp_path, expected):
    path = write_osm(tmp_path / "a.osm.pbf", MAP)
    workers = [copying(path) for _ in range(4)]
    said = {worker.communicate(timeout=300)[0] for worker in workers}
    assert len(said) == 1 and all(worker.returncode == 0 for worker in workers)
    assert [str(copy) for copy in tmp_path.glob("*.fgb")] == [said.pop().strip()]
    np.testing.assert_array_equal(draw(path), expected)


def test_a_killed_copy_is_made_again(tmp_path):
    houses = [
        (shapely.box(x, y, x + 10, y + 10), {"building": "yes"})
        for x in range(0, 4000, 20)
        for y in range(0, 4000, 20)
    ]
    path = write_osm(tmp_path / "a.osm.pbf", houses)
    worker = copying(path)
    while not list(tmp_path.glob("*.partial.fgb")) and worker.poll() is None:
        time.sleep(0.01)
    assert worker.poll() is None, "the copy was there before it could be killed"
    os.kill(worker.pid, signal.SIGKILL)
    worker.communicate()
    assert not [copy for copy in tmp_path.glob("*.fgb") if "partial" not in copy.name]
    assert (draw(path) == INDEX["building"]).sum() * 1.25**2 == 320 * 320 / 4
    assert len(list(tmp_path.glob("*.fgb"))) == 1  # what the killed one left is gone


def test_a_damaged_osm_file_is_refused_and_leaves_no_copy(tmp_path):
    houses = [
        (shapely.box(x, y, x + 10, y + 10), {"building": "yes", "name": f"{x} {y}"})
        for x in range(0, 1500, 20)
        for y in range(0, 1500, 20)
    ]
    whole = write_osm(tmp_path / "a.osm.pbf", houses).read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 0xFF
    for name, content in (
        ("cut", whole[:-100]),
        ("half", whole[: len(whole) // 2]),
        ("flipped", bytes(flipped)),
    ):
        path = tmp_path / f"{name}.osm.pbf"
        path.write_bytes(content)
        with pytest.raises(
            InputError,
            match=f"{name}.osm.pbf: expected an OpenStreetMap file that is whole, osmium",
        ):
            VectorLabels(path).read(GRID)
    assert not list(tmp_path.glob("*.fgb"))
    for content in (b"", b"no map at all, but some text"):
        path.write_bytes(content)
        with pytest.raises(InputError, match="osmium says"):
            VectorLabels(path).check()


def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    path = write_osm(tmp_path / "a.osm.pbf", MAP)
    copy = vector_labels.osm_index.indexed(path, (), {})
    (lock,) = tmp_path.glob(".*.lock")
    copy.unlink()
    lock.unlink()
    lock.mkdir()  # stands in the way of any user, root too
    with pytest.raises(InputError, match="an indexed copy of a.osm.pbf must be written here, but"):
        VectorLabels(path).read(GRID)


def test_what_an_extract_lacks_is_counted_beside_its_copy(tmp_path):
    """A way that refers to a node outside the extract, a relation without its ring, a way of one
    point."""
    path, point = tmp_path / "a.osm", lonlat(shapely.Point(20, 20)).coords[0]
    with osmium.SimpleWriter(path) as writer:
        corners = lonlat(shapely.box(40, 40, 90, 90)).exterior.coords[:-1]
        for i, corner in enumerate([point, *corners], 1):
            writer.add_node(mutable.Node(id=i, location=corner, tags={}))
        writer.add_way(mutable.Way(id=1, nodes=[1, 99], tags={"highway": "primary"}))
        writer.add_way(mutable.Way(id=2, nodes=[1], tags={"highway": "primary"}))
        writer.add_way(mutable.Way(id=3, nodes=[2, 3, 4, 5, 2], tags={"building": "yes"}))
        writer.add_relation(
            mutable.Relation(
                id=1, members=[("w", 77, "outer")], tags={"type": "multipolygon", "natural": "wood"}
            )
        )
    assert (draw(path) == INDEX["building"]).sum() == 40 * 40
    (counts,) = tmp_path.glob("*.json")
    assert json.loads(counts.read_text()) == {
        "shapes": 1,
        "mended": 0,
        "skipped": 0,
        "classless": 0,
        "incomplete_ways": 2,
        "incomplete_relations": 1,
    }
    (labels,) = VectorLabels(path).read(GRID)
    assert labels.source == (
        "a.osm (of the whole file left out: 2 incomplete ways, 1 incomplete relations)"
    )
