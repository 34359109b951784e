"""Outlines of the world's countries for maps, from a small file beside this module.

Made with Natural Earth, free vector and raster map data at naturalearthdata.com, which are in the
public domain: countries of version 4.1.0 at 1:110 million. The file was made from their TopoJSON
edition in the npm package ``world-atlas``:

    npm pack world-atlas@2.0.2 && tar -xf world-atlas-2.0.2.tgz
    python -m data.pages.outlines package/countries-110m.json
"""

import sys
from functools import cache
from pathlib import Path

import numpy as np
import pyogrio
import shapely

from data.errors import InputError

FILE = Path(__file__).with_name("outlines.npz")
CREDIT = "Outlines of countries: Natural Earth."
LAYER = "countries"
UNITS = 100  # coordinates are whole numbers of 1/100 degree, about a kilometre


@cache
def countries() -> list[np.ndarray]:
    """Outer rings of the world's countries: (n, 2) longitude and latitude in degrees each."""
    with np.load(FILE) as stored:
        points = stored["points"] / UNITS  # n 2
        lengths = stored["lengths"]
    return np.split(points, np.cumsum(lengths)[:-1])


def make(source: Path, target: Path = FILE) -> None:
    """Write the file of outlines.

    Args:
        source: countries as polygons in degrees, in any vector format of GDAL, in a layer
            ``countries``. Holes are left out.
        target: file to write (.npz): ``points`` (n, 2) int16 of all rings one after the other, and
            ``lengths`` int16, the number of points of each ring.
    """
    _, _, shapes, _ = pyogrio.raw.read(source, layer=LAYER, columns=[])
    world = shapely.box(-180, -90, 180, 90)
    rings = []
    for polygon in shapely.get_parts(shapely.from_wkb(shapes)):
        corners = np.array(polygon.exterior.coords)[:, :2]  # n 2
        for part in _cut_at_antimeridian(corners, world):
            rings.append(np.rint(UNITS * part).astype(np.int16))
    lengths = np.array([len(ring) for ring in rings], np.int16)
    np.savez_compressed(target, points=np.concatenate(rings), lengths=lengths)


def _cut_at_antimeridian(ring: np.ndarray, world: shapely.Polygon) -> list[np.ndarray]:
    """Cut a ring (n, 2) where it crosses the 180th meridian, else it would be drawn across the map.

    A ring around a pole stays as it is.
    """
    lon = np.unwrap(ring[:, 0], period=360)
    around_pole = abs(lon[-1] - lon[0]) > 180
    if around_pole or np.array_equal(lon, ring[:, 0]):
        return [ring]
    parts = []
    for shift in (-360, 0, 360):
        whole = shapely.Polygon(np.stack([lon + shift, ring[:, 1]], 1))
        for part in shapely.get_parts(shapely.intersection(whole, world)):
            if part.area:
                parts.append(np.array(part.exterior.coords))
    return parts


def main() -> None:
    """Make the file from the one named on the command line."""
    if len(sys.argv) != 2:
        raise InputError(f"expected one file of countries, found {len(sys.argv) - 1} arguments")
    make(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
