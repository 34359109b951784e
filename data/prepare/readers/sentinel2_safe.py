"""Sentinel-2 Level-2A product as the agency delivers it: a .SAFE folder.

It holds JPEG 2000 images, each band at its own pixel size (10 or 20 m), with the scene
classification and XML metadata.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.contract.days import utc_day
from data.prepare.contract.files import open_raster
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.sentinel2 import CLOUDY, FINE_BANDS, SATURATED
from data.prepare.contract.source import Frames, Layer, Place, join_layers
from data.prepare.place.grid import Grid
from data.prepare.readers.rasters import NO_CODE, check_place, codes_on_grid, pixels_of, place_of
from data.prepare.readers.safe_product import Product, read_product, safe_name_faults
from data.tiles.modalities import MODALITIES

CLASSIFICATION = "SCL"


@dataclass(frozen=True)
class Sentinel2Safe:
    """One frame.

    Clouds, shadows and snow are hidden by the classification. The offset that products of baseline
    04.00 and later carry (BOA_ADD_OFFSET) is added, so that all years have one scale.
    """

    path: Path  # the .SAFE folder, its metadata file, or a folder that holds the product alone

    def check_keys(self) -> list[str]:
        """A folder, and not of a Level-1C product, by its name."""
        return safe_name_faults(self.path)

    def check(self) -> None:
        """Metadata, and a readable header of every band and of the classification."""
        product = read_product(self.path)
        for band in (*MODALITIES["ms"].bands, CLASSIFICATION):
            image = _image(product, band)
            with open_raster(image) as dataset:
                check_place(dataset, image)

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_raster(_image(read_product(self.path), FINE_BANDS[0])) as dataset:
            return place_of(dataset, "ms")

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        sensor = MODALITIES["ms"]
        product = read_product(self.path)
        layers = []
        for band in sensor.bands:
            layer = _layer(product, band, grid)
            if layer is None:
                return []
            layers.append(layer)
        codes = codes_on_grid(_image(product, CLASSIFICATION), grid, pixels=1)  # n n
        if codes is None:
            return []
        array, valid = join_layers(layers, sensor, grid)
        valid &= ~np.isin(codes, (*CLOUDY, NO_CODE))
        frames = Frames(
            modality="ms",
            array=array,
            valid=valid,
            dates=[utc_day(product.start)],
            source=self._name(product),
            times=[product.start],
        )
        return [frames]

    def _name(self, product: Product) -> str:
        """The product as the key names it, and where it lies in that folder."""
        if self.path == product.folder or self.path.is_file():
            return self.path.name
        return (Path(self.path.name) / product.folder.relative_to(self.path)).as_posix()


def _layer(product: Product, band: str, grid: Grid) -> Layer | None:
    """One band over the grid; None when its image does not touch it."""
    with open_raster(_image(product, band)) as dataset:
        window = place_of(dataset, "ms").window(grid)
        if window is None:
            return None
        raw = dataset.read([1], window=pixels_of(window))[None]  # 1 1 H W
    numbers = Radiometry(scale=product.scale, offset=product.offset(band) * product.scale)
    array, valid = numbers.in_units(raw, MODALITIES["ms"])
    valid = valid & (raw[:, 0] != SATURATED)
    return Layer(bands=(band,), array=array, valid=valid, georeference=window.georeference)


def _image(product: Product, band: str) -> Path:
    """The file of a band at its own pixel size.

    Raises:
        InputError: it is not there, or the product has several granules.
    """
    size = "20m"
    if band in FINE_BANDS:
        size = "10m"
    # The oldest products keep the classification beside the folders of the pixel sizes, and name it
    # ..._SCL_L2A_TL_..._20m.jp2.
    patterns = [
        f"GRANULE/*/IMG_DATA/R{size}/*_{band}_{size}.jp2",
        f"GRANULE/*/IMG_DATA/*_{band}_{size}.jp2",
        f"GRANULE/*/IMG_DATA/*_{band}_*_{size}.jp2",
    ]
    for pattern in patterns:
        images = sorted(product.folder.glob(pattern))
        if len(images) == 1:
            return images[0]
        if images:
            raise InputError(
                f"{product.folder}: expected one granule, found {len(images)} images {pattern}; "
                "keep one folder of GRANULE beside the metadata, and give each its own source"
            )
    raise InputError(
        f"{product.folder}: expected one image {patterns[0]}, found 0; fetch the Level-2A product "
        "again"
    )
