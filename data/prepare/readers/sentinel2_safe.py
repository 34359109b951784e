"""Sentinel-2 Level-2A product as the agency delivers it: a .SAFE folder.

It holds JPEG 2000 images, each band at its own pixel size (10 or 20 m), with the scene
classification and XML metadata.
"""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.contract.files import need_file, open_raster, reading
from data.prepare.contract.grid import Grid
from data.prepare.contract.radiometry import Radiometry
from data.prepare.contract.sentinel2 import CLOUDY, FINE_BANDS
from data.prepare.contract.source import Frames, Layer, Place, join_layers
from data.prepare.readers.rasters import NO_CODE, check_place, codes_on_grid, pixels_of, place_of
from data.tiles.modalities import MODALITIES

METADATA = "MTD_MSIL2A.xml"
CLASSIFICATION = "SCL"
BAND_OF_ID = (
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
)
FIRST_BASELINE_WITH_OFFSET = 4


@dataclass(frozen=True)
class _Metadata:
    """What the XML file says. Reflectance is (raw + offset) * scale."""

    day: str  # ISO day of the start of sensing
    scale: float
    offsets: dict[str, float]  # band -> offset in raw numbers


@dataclass(frozen=True)
class Sentinel2Safe:
    """One frame.

    Clouds, shadows and snow are hidden by the classification. The offset that products of baseline
    04.00 and later carry (BOA_ADD_OFFSET) is added, so that all years have one scale.
    """

    path: Path

    def check_keys(self) -> list[str]:
        """Nothing: its keys are files."""
        return []

    def check(self) -> None:
        """Metadata, and a readable header of every band and of the classification."""
        self._metadata()
        for band in (*MODALITIES["ms"].bands, CLASSIFICATION):
            image = self._image(band)
            with open_raster(image) as dataset:
                check_place(dataset, image)

    def place(self) -> Place:
        """The 10 m pixels."""
        with open_raster(self._image(FINE_BANDS[0])) as dataset:
            return place_of(dataset, "ms")

    def read(self, grid: Grid) -> list[Frames]:
        """One Frames of one frame."""
        sensor = MODALITIES["ms"]
        metadata = self._metadata()
        layers = []
        for band in sensor.bands:
            offset = metadata.offsets[band] * metadata.scale
            layer = self._layer(band, Radiometry(scale=metadata.scale, offset=offset), grid)
            if layer is None:
                return []
            layers.append(layer)
        codes = codes_on_grid(self._image(CLASSIFICATION), grid, pixels=1)  # n n
        if codes is None:
            return []
        array, valid = join_layers(layers, sensor, grid)
        valid &= ~np.isin(codes, (*CLOUDY, NO_CODE))
        frames = Frames(
            modality="ms", array=array, valid=valid, dates=[metadata.day], source=self.path.name
        )
        return [frames]

    def _layer(self, band: str, numbers: Radiometry, grid: Grid) -> Layer | None:
        """One band over the grid; None when its image does not touch it."""
        with open_raster(self._image(band)) as dataset:
            window = place_of(dataset, "ms").window(grid)
            if window is None:
                return None
            raw = dataset.read([1], window=pixels_of(window))[None]  # 1 1 H W
        array, valid = numbers.in_units(raw, MODALITIES["ms"])
        return Layer(bands=(band,), array=array, valid=valid, georeference=window.georeference)

    def _image(self, band: str) -> Path:
        """The file of a band at its own pixel size."""
        size = "20m"
        if band in FINE_BANDS:
            size = "10m"
        pattern = f"GRANULE/*/IMG_DATA/R{size}/*_{band}_{size}.jp2"
        images = sorted(self.path.glob(pattern))
        if len(images) != 1:
            raise InputError(
                f"{self.path}: expected one image {pattern}, found {len(images)}; "
                "fetch the Level-2A product again"
            )
        return images[0]

    def _metadata(self) -> _Metadata:
        """The metadata file, parsed."""
        file = self.path / METADATA
        need_file(file)
        with reading(file, "the metadata of a Level-2A product"):
            try:
                root = ElementTree.parse(file).getroot()
            except ElementTree.ParseError as error:
                raise ValueError(error) from None
            return _parse_metadata(root)


def _parse_metadata(root: ElementTree.Element) -> _Metadata:
    """Read the elements; raises ValueError or LookupError for one that is missing or wrong."""
    start = datetime.fromisoformat(_text(root, "PRODUCT_START_TIME").rstrip("Z"))
    quantity = float(_text(root, "BOA_QUANTIFICATION_VALUE"))
    baseline = float(_text(root, "PROCESSING_BASELINE"))
    offsets = dict.fromkeys(BAND_OF_ID, 0.0)
    elements = list(root.iter("BOA_ADD_OFFSET"))
    for element in elements:
        band = BAND_OF_ID[int(element.attrib["band_id"])]
        offsets[band] = float(str(element.text))
    if baseline >= FIRST_BASELINE_WITH_OFFSET and not elements:
        raise ValueError("baseline 04.00 or later without BOA_ADD_OFFSET")
    return _Metadata(day=start.date().isoformat(), scale=1 / quantity, offsets=offsets)


def _text(root: ElementTree.Element, tag: str) -> str:
    """The text of the first element called ``tag``."""
    text = root.findtext(f".//{tag}")
    if text is None:
        raise ValueError(f"no {tag}")
    return text
