"""The registry of sensors: a new one is one entry here and one token table in the model's settings."""

from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.tiles.tile import HR_PIXELS


@dataclass(frozen=True)
class Modality:
    """What the input pipeline must know of one sensor (PAPER, section 1)."""

    key: str
    title: str
    bands: tuple[str, ...]
    gsd: float  # metres a pixel
    frames: int  # drawn from the series of a sample, paper preset
    scale: float  # stored numbers are divided by this before mean and std
    mean: tuple[float, ...]
    std: tuple[float, ...]
    dtype: str  # as stored in the archive
    step: float | None  # shards hold whole multiples of it; None: the numbers as they are
    nodata: (
        float | None
    )  # a pixel with this value in any band is no observation; NaN: not finite; None: has a mask

    @property
    def pixels(self) -> int:
        """Pixels along one 10 m cell."""
        return round(10 / self.gsd)


MODALITIES: dict[str, Modality] = {
    entry.key: entry
    for entry in (
        Modality(
            key="hr",
            title="high-resolution optical",
            bands=("R", "G", "B"),
            gsd=10 / HR_PIXELS,
            frames=1,
            scale=255.0,
            mean=(0.485, 0.456, 0.406),
            std=(0.229, 0.224, 0.225),
            dtype="uint8",
            step=None,
            nodata=None,
        ),
        Modality(
            key="ms",
            title="Sentinel-2 L2A, reflectance x 1e4",
            bands=("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12"),
            gsd=10.0,
            frames=20,
            scale=1.0,
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
            step=None,
            nodata=0,
        ),
        Modality(
            key="sar",
            title="Sentinel-1 IW GRD, dB",
            bands=("VV", "VH"),
            gsd=10.0,
            frames=10,
            scale=1.0,
            mean=(-12.55, -20.19),
            std=(5.26, 5.91),
            dtype="float32",
            step=0.01,  # dB; speckle is a hundred times as large
            nodata=float("nan"),
        ),
    )
}


def normalise(array: np.ndarray, modality: str | Modality) -> np.ndarray:
    """Stored numbers (..., C, H, W) -> float32 of the same shape, (x / scale - mean) / std by band.

    Raises InputError when C is not the sensor's number of bands."""
    sensor = MODALITIES[modality] if isinstance(modality, str) else modality
    if array.shape[-3] != len(sensor.bands):
        raise InputError(
            f"normalise {sensor.key}: expected {len(sensor.bands)} bands {sensor.bands}, "
            f"found shape {array.shape}"
        )
    mean, std = (
        np.asarray(values, np.float32)[:, None, None] for values in (sensor.mean, sensor.std)
    )
    return (array.astype(np.float32) / np.float32(sensor.scale) - mean) / std


def observed(array: np.ndarray, sensor: Modality) -> np.ndarray:
    """The sensor's nodata rule: (T, C, H, W) -> bool (T, H, W), true where every band holds an
    observation."""
    if sensor.nodata is None:
        return np.ones((array.shape[0], *array.shape[2:]), bool)
    missing = ~np.isfinite(array) if np.isnan(sensor.nodata) else array == sensor.nodata
    return ~missing.any(axis=1)
