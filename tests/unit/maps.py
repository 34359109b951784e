"""A small map near Kampala and the files that can hold it."""

import json
from pathlib import Path

import numpy as np
import osmium
import pyogrio
import shapely
from osmium.osm import mutable
from rasterio.crs import CRS
from rasterio.warp import transform

from data.prepare.place.grid import Grid

UTM = CRS.from_epsg(32636)
GRID = Grid(UTM, 455_000.0, 39_000.0, 32)  # 320 m
SIDE = 320.0

Shape = tuple[shapely.Geometry, dict[str, str]]  # metres from the grid's lower left corner, tags


def polygon(*corners: tuple[float, float], holes=()) -> shapely.Polygon:
    return shapely.Polygon(corners, holes)


MAP: list[Shape] = [
    (shapely.box(-50, -50, 200, 380), {"landuse": "residential"}),
    (shapely.box(60, 40, 180, 160), {"leisure": "park"}),
    (polygon((80, 60), (120, 55), (140, 90), (100, 130), (75, 100)), {"natural": "water"}),
    (shapely.box(200, 150, 360, 400), {"landuse": "farmland", "crop": "maize"}),
    (
        polygon(
            (210, 20),
            (300, 20),
            (300, 120),
            (210, 120),
            holes=[[(240, 50), (270, 50), (270, 90), (240, 90)]],
        ),
        {"natural": "wood", "leaf_type": "needleleaved"},
    ),
    (shapely.box(10, 10, 22, 25), {"building": "house"}),
    (shapely.box(30, 12, 45, 22), {"building": "yes", "addr:housenumber": '3 "b" \\'}),
    (shapely.box(12, 60, 40, 90), {"building": "yes", "tunnel": "no"}),
    (shapely.box(12, 200, 60, 260), {"amenity": "parking"}),
    (shapely.box(100, 200, 140, 260), {"building": "yes", "demolished": "yes"}),
    (
        shapely.LineString([(-20, 180), (150, 185), (340, 140)]),
        {"highway": "primary", "lanes": "4"},
    ),
    (shapely.LineString([(190, -20), (190, 340)]), {"highway": "residential", "width": "7 m"}),
    (shapely.LineString([(70, 35), (110, 40), (170, 150)]), {"highway": "footway"}),
    (shapely.LineString([(-10, 300), (330, 310)]), {"railway": "rail", "bridge": "yes"}),
    (shapely.LineString([(250, -10), (255, 330)]), {"waterway": "stream"}),
    (shapely.LineString([(20, 330), (60, -10)]), {"waterway": "stream", "tunnel": "culvert"}),
    (
        shapely.LineString([(205, 15), (310, 15), (310, 125), (205, 125), (205, 15)]),
        {"barrier": "hedge"},
    ),
]


def lonlat(geometry: shapely.Geometry) -> shapely.Geometry:
    """A shape of the map in degrees, rounded to OpenStreetMap's 1e-7."""

    def carry(xy):
        x, y = transform(UTM, "EPSG:4326", xy[:, 0] + GRID.x0, xy[:, 1] + GRID.y0 - SIDE)
        return np.round(np.column_stack([x, y]), 7)

    return shapely.transform(geometry, carry)


def in_metres(geometry: shapely.Geometry) -> shapely.Geometry:
    """A shape of the map in the grid's CRS."""
    return shapely.transform(geometry, lambda xy: np.add(xy, (GRID.x0, GRID.y0 - SIDE)))


def write_geojson(path: Path, shapes: list[Shape]) -> Path:
    features = [
        {"type": "Feature", "geometry": shapely.geometry.mapping(lonlat(shape)), "properties": tags}
        for shape, tags in shapes
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def write_geopackage(
    path: Path,
    shapes: list[Shape],
    layer: str = "map",
    tag_column: str | None = None,
    metres: bool = False,
    append: bool = False,
) -> Path:
    """One column a key, or all tags as hstore text in ``tag_column``."""
    carry = in_metres if metres else lonlat
    wkb = shapely.to_wkb(np.array([carry(shape) for shape, _ in shapes], object))
    if tag_column:
        names, columns = [tag_column], [np.array([hstore(tags) for _, tags in shapes], object)]
    else:
        names = sorted({key for _, tags in shapes for key in tags})
        columns = [np.array([tags.get(name) for _, tags in shapes], object) for name in names]
    pyogrio.raw.write(
        path,
        wkb,
        columns,
        names,
        layer=layer,
        driver="GPKG",
        geometry_type="Unknown",
        append=append,
        crs="EPSG:32636" if metres else "EPSG:4326",
    )
    return path


def hstore(tags: dict[str, str]) -> str:
    def quote(word):
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    return ",".join(f"{quote(key)}=>{quote(value)}" for key, value in tags.items())


def write_osm(path: Path, shapes: list[Shape]) -> Path:
    """Ways, and a relation for a polygon with holes; .osm, .osm.pbf, ... by the name."""
    nodes, ways, relations = [], [], []

    def way(ring, tags) -> int:
        first = len(nodes) + 1
        points = ring.coords[:-1] if ring.is_closed else ring.coords
        nodes.extend(
            mutable.Node(id=first + i, location=point, tags={}) for i, point in enumerate(points)
        )
        refs = list(range(first, len(nodes) + 1))
        ways.append(
            mutable.Way(
                id=len(ways) + 1, nodes=refs + refs[:1] if ring.is_closed else refs, tags=tags
            )
        )
        return len(ways)

    for shape, tags in shapes:
        shape = lonlat(shape)
        if shape.geom_type == "LineString":
            way(shape, tags)
        elif not shape.interiors:
            way(shape.exterior, tags)
        else:
            members = [
                ("w", way(shape.exterior, {}), "outer"),
                *[("w", way(ring, {}), "inner") for ring in shape.interiors],
            ]
            relations.append(
                mutable.Relation(
                    id=len(relations) + 1, members=members, tags=tags | {"type": "multipolygon"}
                )
            )
    with osmium.SimpleWriter(path) as writer:
        for node in nodes:
            writer.add_node(node)
        for item in ways:
            writer.add_way(item)
        for item in relations:
            writer.add_relation(item)
    return path
