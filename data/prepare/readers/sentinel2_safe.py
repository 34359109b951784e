"""Sentinel-2 Level-2A product as the agency delivers it: a .SAFE folder of JPEG 2000 images, each
band at its own pixel size (10 or 20 m), with the scene classification and XML metadata."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.contract.grid import Grid
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.source import (
    Frames,
    Layer,
    Place,
    join_layers,
    need_file,
    open_raster,
    pixels_of,
    reading,
)
from data.prepare.readers.geotiff import check_place, place_of
from data.prepare.readers.netcdf_series import CLOUDY, FINE
from data.prepare.readers.raster_labels import codes_on_grid
from data.tiles.modalities import MODALITIES

METADATA = "MTD_MSIL2A.xml"
BANDS = (
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
)  # by band_id


@dataclass(frozen=True)
class Sentinel2Safe:
    """One frame. Clouds, shadows and snow are hidden by the classification. The offset that
    products of baseline 04.00 and later carry (BOA_ADD_OFFSET) is added, so that all years have one
    scale."""

    path: Path

    def check(self) -> None:
        """Metadata, and a readable header of every band and of the classification."""
        self._metadata()
        for band in (*MODALITIES["ms"].bands, "SCL"):
            with open_raster(self._image(band)) as dataset:
                check_place(dataset, self._image(band))

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_raster(self._image(FINE[0])) as dataset:
            return place_of(dataset, "ms")

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        day, scale, offsets = self._metadata()
        layers = [
            self._layer(band, Radiometry(scale=scale, offset=offsets[band] * scale), grid)
            for band in MODALITIES["ms"].bands
        ]
        codes = codes_on_grid(self._image("SCL"), grid, pixels=1)  # n n
        if None in layers or codes is None:
            return []
        array, valid = join_layers(layers, MODALITIES["ms"], grid)
        return [Frames("ms", array, valid & ~np.isin(codes, (*CLOUDY, -1)), [day], self.path.name)]

    def _layer(self, band: str, numbers: Radiometry, grid: Grid) -> Layer | None:
        with open_raster(self._image(band)) as dataset:
            window = place_of(dataset, "ms").window(grid)
            if window is None:
                return None
            raw, crs = dataset.read([1], window=pixels_of(window))[None], dataset.crs  # 1 1 H W
        array, seen = numbers.in_units(raw, MODALITIES["ms"])
        return Layer((band,), array, seen, window.transform, crs)

    def _image(self, band: str) -> Path:
        """The file of a band at its own pixel size."""
        size = "10m" if band in FINE else "20m"
        found = sorted(self.path.glob(f"GRANULE/*/IMG_DATA/R{size}/*_{band}_{size}.jp2"))
        if len(found) != 1:
            raise InputError(
                f"{self.path}: expected one image GRANULE/*/IMG_DATA/R{size}/*_{band}_{size}.jp2, found "
                f"{len(found)}; fetch the Level-2A product again"
            )
        return found[0]

    def _metadata(self) -> tuple[str, float, dict[str, float]]:
        """(sensing day, scale, offset in raw numbers of each band). Reflectance is (raw + offset) x
        scale."""
        file = self.path / METADATA
        need_file(file)
        with reading(file, "the metadata of a Level-2A product"):
            try:
                root = ElementTree.parse(file).getroot()
            except ElementTree.ParseError as error:
                raise ValueError(error) from None
            start = datetime.fromisoformat(
                root.findtext(".//PRODUCT_START_TIME", "no PRODUCT_START_TIME").rstrip("Z")
            )
            quantity = float(
                root.findtext(".//BOA_QUANTIFICATION_VALUE", "no BOA_QUANTIFICATION_VALUE")
            )
            offsets = dict.fromkeys(BANDS, 0.0)
            for element in root.iter("BOA_ADD_OFFSET"):
                offsets[BANDS[int(element.get("band_id"))]] = float(element.text)
            if float(
                root.findtext(".//PROCESSING_BASELINE", "no PROCESSING_BASELINE")
            ) >= 4 and not any(True for _ in root.iter("BOA_ADD_OFFSET")):
                raise ValueError("baseline 04.00 or later without BOA_ADD_OFFSET")
        return start.date().isoformat(), 1 / quantity, offsets
