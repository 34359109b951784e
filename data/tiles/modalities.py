"""The registry of sensors. A new sensor is one entry here, and its settings in a run.

Everything that the project knows of a sensor stands in its entry: how its numbers are stored and
normalised, how catalogues name it, how pictures and charts show it. ``hr`` is the one sensor that a
tile has as a single image; every other entry is a series of frames on the tile's 10 m grid.
"""

from dataclasses import dataclass, field

import numpy as np

from data.errors import InputError

CELL_METRES = 10.0  # side of a tile's cells
HR_PIXELS = 32  # high-resolution pixels along a cell: 0.3125 m
IMAGE = "hr"  # key of the sensor without a time axis

# Units of stored numbers to which the readers know the way from other units.
BYTE = "byte"
REFLECTANCE = "reflectance x 1e4"
DECIBEL = "dB"


@dataclass(frozen=True, kw_only=True)
class Display:
    """How pictures and charts show a sensor.

    Attributes:
        colour: of its lines and bars in charts.
        true_colour: the bands for red, green and blue; None where the eye would see none of it.
        least_span: the smallest range of numbers that a picture stretches from black to white, in
            the archive's unit; None: pictures are not stretched.
    """

    colour: str
    true_colour: tuple[str, str, str] | None = None
    least_span: float | None = None


@dataclass(frozen=True, kw_only=True)
class CatalogueNames:
    """How STAC catalogues name a sensor and its bands.

    Attributes:
        platforms: what the platform or constellation of an item contains, in lower case.
        bands: names in lower case, here or in files -> the sensor's own, which need not be listed.
        classification: the asset with the codes of the scene classification, if there is one.
    """

    platforms: tuple[str, ...] = ()
    bands: dict[str, str] = field(default_factory=dict)
    classification: str | None = None


@dataclass(frozen=True, kw_only=True)
class Modality:
    """One sensor (PAPER, section 1).

    Attributes:
        key: its name in archives, shards, settings and batches.
        title: its name in reports, with the unit.
        bands: names in the order of the channels.
        gsd: metres a pixel.
        unit: of the numbers in the archive.
        scale: stored numbers are divided by this before ``mean`` and ``std``.
        mean: of each band.
        std: standard deviation of each band.
        dtype: as stored in the archive.
        step: shards hold whole multiples of it; None: the numbers as they are.
        nodata: a pixel with this number in any band is no observation. NaN: numbers that are not
            finite; None: the sensor's files have a mask instead.
        display: how pictures and charts show it.
        catalogue: how STAC catalogues name it.
    """

    key: str
    title: str
    bands: tuple[str, ...]
    gsd: float
    unit: str
    scale: float = 1.0
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str
    step: float | None = None
    nodata: float | None
    display: Display
    catalogue: CatalogueNames = CatalogueNames()

    def __post_init__(self) -> None:
        if not len(self.bands) == len(self.mean) == len(self.std):
            raise InputError(
                f"sensor {self.key!r}: expected a mean and a std for each of {len(self.bands)} "
                f"bands, found {len(self.mean)} and {len(self.std)}"
            )
        if self.key != IMAGE and self.pixels != 1:
            raise InputError(
                f"sensor {self.key!r}: expected pixels of {CELL_METRES:g} m, to which its files "
                f"are resampled, found {self.gsd:g} m"
            )

    @property
    def pixels(self) -> int:
        """Pixels along one 10 m cell."""
        return round(CELL_METRES / self.gsd)


SENSORS = (
    Modality(
        key=IMAGE,
        title="high-resolution optical",
        bands=("R", "G", "B"),
        gsd=CELL_METRES / HR_PIXELS,
        unit=BYTE,
        scale=255.0,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        dtype="uint8",
        nodata=None,
        display=Display(colour="#d1495b", true_colour=("R", "G", "B")),
        catalogue=CatalogueNames(bands={"red": "R", "green": "G", "blue": "B"}),
    ),
    Modality(
        key="ms",
        title="Sentinel-2 L2A, reflectance x 1e4",
        bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
        gsd=10.0,
        unit=REFLECTANCE,
        mean=(
            884.30,
            1144.16,
            1297.47,
            1624.91,
            2194.64,
            2422.21,
            2517.76,
            2581.65,
            2368.51,
            1805.07,
        ),
        std=(
            1155.15,
            1183.63,
            1368.11,
            1370.27,
            1355.55,
            1416.51,
            1474.79,
            1439.31,
            1455.52,
            1343.48,
        ),
        dtype="uint16",
        nodata=0,
        display=Display(
            colour="#2e8b57",
            true_colour=("B04", "B03", "B02"),
            least_span=400.0,
        ),
        catalogue=CatalogueNames(
            platforms=("sentinel-2",),
            bands={
                "blue": "B02",
                "green": "B03",
                "red": "B04",
                "rededge1": "B05",
                "rededge2": "B06",
                "rededge3": "B07",
                "rededge071": "B05",
                "rededge075": "B06",
                "rededge078": "B07",
                "re1": "B05",
                "re2": "B06",
                "re3": "B07",
                "nir": "B08",
                "nearinfrared": "B08",
                "broadnir": "B08",
                "nir08": "B8A",
                "narrownir": "B8A",
                "rededge4": "B8A",
                "re4": "B8A",
                "swir16": "B11",
                "swir1": "B11",
                "swir22": "B12",
                "swir2": "B12",
            },
            classification="scl",
        ),
    ),
    Modality(
        key="sar",
        title="Sentinel-1 IW GRD, dB",
        bands=("VV", "VH"),
        gsd=10.0,
        unit=DECIBEL,
        mean=(-12.55, -20.19),
        std=(5.26, 5.91),
        dtype="float32",
        step=0.01,  # dB; speckle is a hundred times as large
        nodata=float("nan"),
        display=Display(colour="#3d6fb6", least_span=4.0),
        catalogue=CatalogueNames(platforms=("sentinel-1",)),
    ),
)
MODALITIES: dict[str, Modality] = {sensor.key: sensor for sensor in SENSORS}


def normalise(array: np.ndarray, modality: str | Modality) -> np.ndarray:
    """Normalise stored numbers: (x / scale - mean) / std by band.

    Args:
        array: ... C H W in the archive's unit.
        modality: the sensor or its key.

    Returns:
        float32 of the same shape.

    Raises:
        InputError: C is not the sensor's number of bands.
    """
    sensor = modality
    if isinstance(sensor, str):
        sensor = MODALITIES[sensor]
    if array.shape[-3] != len(sensor.bands):
        raise InputError(
            f"normalise {sensor.key}: expected {len(sensor.bands)} bands {sensor.bands}, "
            f"found shape {array.shape}"
        )
    mean = np.asarray(sensor.mean, np.float32)[:, None, None]  # C 1 1
    std = np.asarray(sensor.std, np.float32)[:, None, None]  # C 1 1
    return (array.astype(np.float32) / np.float32(sensor.scale) - mean) / std


def observed(array: np.ndarray, sensor: Modality) -> np.ndarray:
    """Apply the sensor's nodata rule.

    Args:
        array: T C H W in the archive's unit.
        sensor: its sensor.

    Returns:
        T H W bool, true where every band holds an observation.
    """
    if sensor.nodata is None:
        return np.ones((array.shape[0], *array.shape[2:]), bool)
    if np.isnan(sensor.nodata):
        return np.isfinite(array).all(axis=1)
    return (array != sensor.nodata).all(axis=1)
