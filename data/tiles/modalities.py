"""The sensors: the built-in ones, and those of the files that this process has opened.

Everything that the project knows of a sensor stands in its entry: how its numbers are stored and
normalised, how catalogues name it, how pictures and charts show it. ``hr`` is the one sensor that a
tile has as a single image; every other entry is a series of frames. A user's own sensor is written
as in ``data/tiles/definitions.py``.
"""

import numpy as np

from data.errors import InputError
from data.tiles.known import KnownSensors
from data.tiles.sensor import (
    BYTE,
    CELL_METRES,
    DECIBEL,
    HR_PIXELS,
    IMAGE,
    REFLECTANCE,
    UNMEASURED,
    CatalogueNames,
    Display,
    Modality,
)

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
MODALITIES = KnownSensors(SENSORS)


def normalise(array: np.ndarray, modality: str | Modality) -> np.ndarray:
    """Normalise stored numbers: (x / scale - mean) / std by band.

    Args:
        array: ... C H W in the archive's unit.
        modality: the sensor or its key.

    Returns:
        float32 of the same shape.

    Raises:
        InputError: C is not the sensor's number of bands, or nobody has measured its mean and std.
    """
    sensor = modality
    if isinstance(sensor, str):
        sensor = MODALITIES[sensor]
    if not sensor.is_measured:
        raise InputError(f"normalise {sensor.key}: expected its mean and std, {UNMEASURED}")
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
    valid = np.ones((array.shape[0], *array.shape[2:]), bool)  # T H W
    if np.issubdtype(array.dtype, np.floating):
        valid = np.isfinite(array).all(axis=1)
    if sensor.nodata is None or np.isnan(sensor.nodata):
        return valid
    return valid & (array != sensor.nodata).all(axis=1)
