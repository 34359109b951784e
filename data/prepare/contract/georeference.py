"""Where the pixels of a raster lie on the ground."""

from dataclasses import dataclass

from affine import Affine
from rasterio.coords import BoundingBox
from rasterio.crs import CRS


@dataclass(frozen=True)
class Georeference:
    """The place of a raster's pixels."""

    transform: Affine  # (column, row) -> coordinates in ``crs``
    crs: CRS

    def bounds(self, shape: tuple[int, int]) -> BoundingBox:
        """The bounds in ``crs`` of ``shape`` = (rows, columns) north-up pixels."""
        rows, columns = shape
        left = self.transform.c
        top = self.transform.f
        right = left + self.transform.a * columns
        bottom = top + self.transform.e * rows
        return BoundingBox(left, bottom, right, top)
