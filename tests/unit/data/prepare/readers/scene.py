"""A scene whose numbers follow a formula, and the files that hold it."""

from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from rasterio.crs import CRS

from data.prepare.place.grid import Grid
from data.tiles.modalities import MODALITIES

UTM = CRS.from_epsg(32632)


LEFT, TOP = 600_000, 5_400_000


GRID = Grid(
    UTM, LEFT + 200.0, TOP - 120.0, 16
)  # cells 20 to 36 from the left, 12 to 28 from the top


ROWS, COLUMNS = np.arange(12, 28)[:, None], np.arange(20, 36)[None]


SCENE = 96  # 10 m pixels along the side of a scene


BANDS = MODALITIES["ms"].bands


FINE = ("B02", "B03", "B04", "B08")


def numbers(band: str, size: int) -> np.ndarray:
    """Raw numbers of a band with ``size`` pixels along the scene: a plane, exact at 10 m and
    between 20 m pixels."""
    at = (np.arange(size) + 0.5) * SCENE / size  # in 10 m pixels
    return (2000 + 100 * BANDS.index(band) + 16 * at[:, None] + 8 * at[None]).astype(np.uint16)


def expected(band: str) -> np.ndarray:
    """The plane at the centres of the grid's cells."""
    return 2000 + 100 * BANDS.index(band) + 16 * (ROWS + 0.5) + 8 * (COLUMNS + 0.5)


def write(path: Path, array: np.ndarray, driver="GTiff", **options) -> Path:
    """(C, H, W) over the scene's ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pixel = 10 * SCENE / array.shape[-1]
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=len(array),
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        crs=UTM,
        transform=Affine(pixel, 0, LEFT, 0, -pixel, TOP),
        **options,
    ) as file:
        file.write(array)
    return path


def clouds() -> np.ndarray:
    """Scene classification at 20 m: vegetation, with a cloud over the 10 m rows 16, 17 and columns
    24, 25."""
    codes = np.full((1, SCENE // 2, SCENE // 2), 4, np.uint8)
    codes[0, 8, 12] = 9
    return codes


def clear() -> np.ndarray:
    mask = np.ones((16, 16), bool)
    mask[4:6, 4:6] = False
    return mask
