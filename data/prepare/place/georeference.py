"""Where the pixels of a raster lie on the ground."""

from dataclasses import dataclass

import numpy as np
import pyproj
import rasterio
from affine import Affine
from rasterio.coords import BoundingBox
from rasterio.crs import CRS

# Metres around the middle of an image whose place nobody knows.
NOWHERE = CRS.from_wkt('LOCAL_CS["no place",UNIT["metre",1],AXIS["X",EAST],AXIS["Y",NORTH]]')
COMPOUND = ("COMPD_CS", "COMPOUNDCRS")  # begin the WKT of a CRS of places and heights
NOISE = 1e-3  # pixels at the far corner, by which a turn of rounded numbers may move them


def has_place(crs: CRS | None) -> bool:
    """Whether ``crs`` says where on Earth coordinates are. A local (engineering) CRS does not."""
    return crs is not None and (crs.is_projected or crs.is_geographic)


def crs_of_text(text: object) -> CRS:
    """The CRS that a user or a file names, as EPSG:n, WKT, PROJ text or PROJJSON.

    Raises:
        CRSError: it is unknown. Also TypeError or ValueError.
    """
    with rasterio.Env():  # without it GDAL prints what it thinks of the text
        return CRS.from_user_input(text)


def heights_of(crs: CRS | None) -> pyproj.CRS | None:
    """The vertical part of a CRS of places and heights; None where there is none."""
    if crs is None or not crs.to_wkt().startswith(COMPOUND):
        return None
    return pyproj.CRS(crs.to_wkt()).sub_crs_list[-1]


def without_heights(crs: CRS | None) -> CRS | None:
    """A CRS without its vertical part, which says nothing of where pixels lie."""
    if crs is None or heights_of(crs) is None:
        return crs
    return CRS.from_wkt(pyproj.CRS(crs.to_wkt()).sub_crs_list[0].to_wkt())


def without_noise(transform: Affine, shape: tuple[int, int]) -> Affine:
    """A transform without a turn so small that no pixel moves by it: rounding left it there.

    Args:
        transform: of a raster.
        shape: its rows and columns.
    """
    rows, columns = shape
    sideways = abs(transform.b) * rows <= NOISE * abs(transform.a)
    upwards = abs(transform.d) * columns <= NOISE * abs(transform.e)
    if not sideways or not upwards:
        return transform
    return Affine(transform.a, 0, transform.c, 0, transform.e, transform.f)


@dataclass(frozen=True)
class Georeference:
    """The place of a raster's pixels.

    Columns run along x and rows along y, in either direction: readers refuse turned pixels.
    """

    transform: Affine  # (column, row) -> coordinates in ``crs``
    crs: CRS

    def bounds(self, shape: tuple[int, int]) -> BoundingBox:
        """The bounds in ``crs`` of ``shape`` = (rows, columns) pixels."""
        rows, columns = shape
        x = sorted([self.transform.c, self.transform.c + self.transform.a * columns])
        y = sorted([self.transform.f, self.transform.f + self.transform.e * rows])
        return BoundingBox(x[0], y[0], x[1], y[1])

    def centre(self, shape: tuple[int, int]) -> tuple[float, float]:
        """The middle of ``shape`` = (rows, columns) pixels in ``crs``."""
        left, bottom, right, top = self.bounds(shape)
        return (left + right) / 2, (bottom + top) / 2

    def north_up(self, shape: tuple[int, int]) -> "Georeference":
        """The same pixels counted from the upper left, as ``flipped`` turns their array."""
        left, _, _, top = self.bounds(shape)
        pixel = self.transform
        return Georeference(Affine(abs(pixel.a), 0, left, 0, -abs(pixel.e), top), self.crs)

    def flipped(self, array: np.ndarray) -> np.ndarray:
        """An array (..., H, W) of these pixels with rows to the south and columns to the east."""
        if self.transform.e > 0:
            array = array[..., ::-1, :]
        if self.transform.a < 0:
            array = array[..., ::-1]
        return array
