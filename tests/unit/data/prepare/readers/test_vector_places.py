"""Where the shapes of label files lie: degrees or not, over the tile or not, across 180 degrees."""

import json

import numpy as np
import pyogrio
import pytest
import rasterio
import shapely
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.source import Remark
from data.prepare.manifest.entry import Entry
from data.prepare.place.grid import Grid
from data.prepare.readers.geotiff import GeoTiffImage
from data.prepare.readers.vector_labels import VectorLabels
from data.tiles.classes import INDEX
from tests.unit.maps import GRID, MAP, UTM, in_metres, lonlat, write_geopackage, write_osm

HOUSE = {"building": "yes"}


def write(path, shapes, tags=HOUSE, crs=None):
    features = [
        {"type": "Feature", "properties": tags, "geometry": shapely.geometry.mapping(shape)}
        for shape in shapes
    ]
    collection = {"type": "FeatureCollection", "features": features}
    if crs is not None:
        collection["crs"] = {"type": "name", "properties": {"name": crs}}
    path.write_text(json.dumps(collection))
    return path


def remark(path, grid=GRID, **options) -> str:
    (item,) = VectorLabels(path, **options).read(grid)
    assert isinstance(item, Remark)
    return item.text


def exchanged(shape: shapely.Geometry) -> shapely.Geometry:
    return shapely.transform(shape, lambda xy: xy[:, ::-1])


def test_metres_without_a_crs_are_refused_and_with_one_are_drawn(tmp_path):
    square = in_metres(shapely.box(40, 40, 80, 80))
    with pytest.raises(
        InputError, match=r"a.geojson: expected .* degrees, found .*455040.*\"crs\""
    ):
        VectorLabels(write(tmp_path / "a.geojson", [square])).check()
    for name in ("urn:ogc:def:crs:EPSG::32636", "EPSG:32636"):
        path = write(tmp_path / "b.geojson", [square], crs=name)
        (labels,) = VectorLabels(path).read(GRID)
        assert (labels.draw(GRID) == INDEX["building"]).sum() == 32 * 32
    square = lonlat(shapely.box(40, 40, 80, 80))
    path = write(tmp_path / "c.geojson", [square], crs="urn:ogc:def:crs:OGC:1.3:CRS84")
    (labels,) = VectorLabels(path).read(GRID)
    assert (labels.draw(GRID) == INDEX["building"]).sum() == pytest.approx(32 * 32, abs=40)


@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb"])
def test_latitude_first_is_told(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array([shapely.box(35.0, 139.0, 35.1, 139.1)], object)),
        [np.array(["yes"], object)],
        ["building"],
        crs="EPSG:4326",
        geometry_type="Polygon",
    )
    with pytest.raises(InputError, match="latitude seems to stand first: exchange the two"):
        VectorLabels(path).check()


def test_a_file_with_nothing_over_the_tile_says_why(tmp_path):
    far = Grid(UTM, GRID.x0 + 50_000, GRID.y0, 4)
    path = write_geopackage(tmp_path / "a.gpkg", MAP)
    assert remark(path, far).startswith("left out, has no shape over the tile at 33.04")
    assert "its shapes span 32.59" in remark(path, far) and "EPSG:4326" in remark(path, far)
    assert "no shape over the tile" in remark(write_osm(tmp_path / "a.osm.pbf", MAP), far)
    turned = write(tmp_path / "b.geojson", [exchanged(lonlat(shapely.box(-99, -99, 999, 999)))])
    assert "with latitude and longitude exchanged they would lie around it" in remark(turned)
    empty = write(tmp_path / "c.geojson", [])
    assert remark(empty, tags=HOUSE) == "left out, has no shapes at all"
    nameless = write(tmp_path / "d.geojson", [lonlat(MAP[0][0])], {"building": "no"})
    assert "none of the 1 shapes around the tile has a tag that names a visible class" in remark(
        nameless
    )
    points = write_osm(tmp_path / "e.osm", [(MAP[0][0], {"building": "no"})])
    assert "none of the file's 1 shapes has a tag that names a visible class" in remark(points)


def test_the_tiles_notes_tell_it(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=128,
        height=128,
        count=3,
        dtype="uint8",
        crs=UTM,
        transform=Grid(UTM, GRID.x0, GRID.y0, 4).transform(32),
    ) as dataset:
        dataset.write(np.full((3, 128, 128), 90, np.uint8))
    image = GeoTiffImage(tmp_path / "a.tif", ("R", "G", "B"), modality="hr", date="2020-01-01")
    elsewhere = write(tmp_path / "far.geojson", [lonlat(shapely.box(5000, 0, 5010, 10))])
    beside = write(tmp_path / "near.geojson", [lonlat(shapely.box(-50, 300, -40, 310))])
    readers = (image, VectorLabels(elsewhere), VectorLabels(beside))
    tile, notes = build_tile(Entry("a", readers, "", ""))
    assert len(notes) == 2 and "far" not in tile.source
    assert notes[0].startswith("sources[1] far.geojson: left out, has no shape over the tile")
    assert notes[1] == "labels: near.geojson has no label for any pixel of the tile"


FIJI = CRS.from_epsg(32701)
TO_FIJI = Transformer.from_crs("OGC:CRS84", "EPSG:32701", always_xy=True)


def forms() -> dict[str, shapely.Geometry]:
    """One rectangle from 179.999 to -179.999, in every form that files have it in."""
    south, north = -16.801, -16.799

    def ring(*lons):
        low = [(lon, south) for lon in lons]
        return [*low, *[(lon, north) for lon in reversed(lons)]]

    return {
        "jumps": shapely.Polygon(ring(179.999, -179.999)),
        "beyond 180": shapely.Polygon(ring(179.999, 180.001)),
        "beyond -180": shapely.Polygon(ring(-180.001, -179.999)),
        "two parts": shapely.MultiPolygon(
            [shapely.Polygon(ring(179.999, 180)), shapely.Polygon(ring(-180, -179.999))]
        ),
    }


@pytest.mark.parametrize("form", forms())
@pytest.mark.parametrize("suffix", [".geojson", ".gpkg", ".fgb"])
@pytest.mark.parametrize("east", [-60, -320, 0])  # across it, west of it, east of it
def test_a_shape_across_the_180th_meridian_is_drawn_once(tmp_path, form, suffix, east):
    x, y = TO_FIJI.transform(180.0, -16.8)
    grid = Grid(FIJI, round(x) + east, round(y) + 160, 32)
    corners = np.array(
        [(179.999, -16.801), (180.001, -16.801), (180.001, -16.799), (179.999, -16.799)]
    )
    true = shapely.Polygon(np.column_stack(TO_FIJI.transform(*corners.T)))
    steps = 1.25 * np.arange(256) + 0.625
    px, py = np.meshgrid(grid.x0 + steps, grid.y0 - steps)
    clear = shapely.distance(true.boundary, shapely.points(px, py)) > 0.05
    path = tmp_path / f"a{suffix}"
    pyogrio.raw.write(
        path,
        shapely.to_wkb(np.array([forms()[form]], object)),
        [np.array(["yes"], object)],
        ["building"],
        crs="EPSG:4326",
        geometry_type="Unknown",
    )
    (labels,) = VectorLabels(path).read(grid)
    drawn = labels.draw(grid) == INDEX["building"]
    np.testing.assert_array_equal(drawn[clear], shapely.contains_xy(true, px, py)[clear])
    assert drawn.sum() > 1000
    # The other way round the Earth there is nothing.
    assert "no shape over the tile" in remark(
        path, Grid(CRS.from_epsg(32731), 500_000, grid.y0, 32)
    )
