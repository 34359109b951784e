"""From the numbers of a file to the units that the archive stores: bytes, reflectance x 1e4, dB."""

from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.prepare.contract.faults import sar_to_db
from data.tiles.modalities import Modality, observed

UNITS = ("db", "power", "amplitude")  # of SAR; amplitude is the square root of power
REFLECTANCE = 1e-4  # one unit of the archive


@dataclass(frozen=True, kw_only=True)
class Radiometry:
    """The keys that a reader of images has for its numbers. ``raw x scale + offset`` is reflectance
    (ms), a byte (hr), or dB, linear power or amplitude (sar). ``scale`` None: one raw number is one
    unit of the archive. ``nodata``: the raw number of no observation, beside the sensor's own."""

    scale: float | None = None
    offset: float = 0.0
    units: str = "db"
    nodata: float | None = None

    def check_numbers(self, where: object, sensor: Modality, kind: np.dtype | str) -> None:
        """InputError for unknown units, an offset without a scale, or numbers of ``kind`` that
        would be cut off."""
        if self.units not in UNITS:
            raise InputError(f"{where}: units {self.units!r}: expected one of {list(UNITS)}")
        if self.units != "db" and sensor.key != "sar":
            raise InputError(f"{where}: units {self.units!r} are of sar, found {sensor.key}")
        if self.scale is None and self.offset:
            raise InputError(f"{where}: offset {self.offset} without a scale; give both")
        if self.scale is not None and not self.scale > 0:
            raise InputError(f"{where}: scale {self.scale}: expected a number above 0")
        if self._plain and not np.can_cast(kind, sensor.dtype):
            raise InputError(
                f"{where}: expected {sensor.key} as {sensor.dtype}, found {kind}; "
                "if its unit is another, give 'scale'"
            )

    def in_units(self, raw: np.ndarray, sensor: Modality) -> tuple[np.ndarray, np.ndarray]:
        """(T, C, H, W) as read -> the same in the archive's units and type, and bool (T, H, W) of
        observations.

        An observed reflectance at or below zero becomes 1: 0 is no observation."""
        seen = observed(raw, sensor)
        if self.nodata is not None:
            seen &= ~(np.isnan(raw) if np.isnan(self.nodata) else raw == self.nodata).any(axis=1)
        if self._plain:
            return raw.astype(sensor.dtype, copy=False), seen
        seen &= np.isfinite(raw).all(axis=1)
        value = (
            np.where(seen[:, None], raw, 0).astype(np.float64) * (self.scale or 1.0) + self.offset
        )
        if sensor.key == "sar":
            return self._decibel(value, seen)
        value = np.rint(value / REFLECTANCE if sensor.key == "ms" else value)
        limits = np.iinfo(sensor.dtype)
        low = limits.min if sensor.nodata is None else sensor.nodata + 1
        return np.where(seen[:, None], value.clip(low, limits.max), 0).astype(sensor.dtype), seen

    def _decibel(self, value: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.units == "db":
            return value.astype(np.float32), seen
        power = value if self.units == "power" else np.where(value > 0, value, 0) ** 2
        decibel, positive = sar_to_db(power)
        return decibel, positive & seen

    @property
    def _plain(self) -> bool:
        return self.scale is None and self.units == "db"
