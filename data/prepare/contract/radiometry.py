"""From the numbers of a file to the units of the archive: bytes, reflectance x 1e4, dB."""

import math
from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.prepare.contract.faults import sar_to_db
from data.suggest import did_you_mean
from data.tiles.modalities import DECIBEL, MODALITIES, REFLECTANCE, Modality, observed

UNITS = ("db", "power", "amplitude")  # of SAR; amplitude is the square root of power
REFLECTANCE_UNIT = 1e-4  # reflectance of one unit of the archive


@dataclass(frozen=True, kw_only=True)
class Radiometry:
    """What a reader's keys say of the numbers of an image.

    ``raw * scale + offset`` is reflectance (ms), a byte (hr), or dB, linear power or amplitude
    (sar).
    """

    scale: float | None = None  # None: one raw number is one unit of the archive
    offset: float = 0.0
    units: str = "db"
    nodata: float | None = None  # the raw number of no observation, beside the sensor's own

    def number_faults(self, modality: str) -> list[str]:
        """What is wrong with the keys; see ``Reader.check_keys``.

        Args:
            modality: the key of the sensor whose numbers they are, which may be unknown.
        """
        faults = []
        sensor = MODALITIES.get(modality)
        if self.units not in UNITS:
            faults.append(
                f"units {self.units!r}: expected one of {list(UNITS)}"
                f"{did_you_mean(self.units, UNITS)}"
            )
        elif self.units != "db" and sensor is not None and sensor.unit != DECIBEL:
            faults.append(f"units {self.units!r} are of sar, found {modality}")
        if self.scale is None and self.offset:
            faults.append(f"offset {self.offset} without a scale; give both")
        if self.scale is not None and not 0 < self.scale < math.inf:
            faults.append(f"scale {self.scale}: expected a number above 0")
        if not math.isfinite(self.offset):
            faults.append(f"offset {self.offset}: expected a finite number")
        return faults

    def check_numbers(self, where: object, sensor: Modality, dtype: np.dtype | str) -> None:
        """Check the numbers, which a file may give, and the type of its pixels.

        Raises:
            InputError: unknown units, an offset without a scale, or numbers of a ``dtype`` that
                would be cut off.
        """
        for fault in self.number_faults(sensor.key):
            raise InputError(f"{where}: {fault}")
        if self._is_plain and not np.can_cast(dtype, sensor.dtype):
            raise InputError(
                f"{where}: expected {sensor.key} as {sensor.dtype}, found {dtype}; "
                "if its unit is another, give 'scale'"
            )

    def in_units(self, raw: np.ndarray, sensor: Modality) -> tuple[np.ndarray, np.ndarray]:
        """Convert raw numbers to the units and the type of the archive.

        An observed reflectance at or below zero becomes 1, because 0 means no observation.

        Args:
            raw: (T, C, H, W) as read.
            sensor: the sensor that they are of.

        Returns:
            The converted numbers (T, C, H, W), and which pixels are observations, bool (T, H, W).
        """
        valid = observed(raw, sensor) & ~self._is_nodata(raw)
        if self._is_plain:
            return raw.astype(sensor.dtype, copy=False), valid
        valid &= np.isfinite(raw).all(axis=1)
        clean = np.where(valid[:, None], raw, 0).astype(np.float64)
        scale = 1.0
        if self.scale is not None:
            scale = self.scale
        value = clean * scale + self.offset
        if sensor.unit == DECIBEL:
            return self._decibel(value, valid)
        if sensor.unit == REFLECTANCE:
            value = value / REFLECTANCE_UNIT
        if not np.issubdtype(sensor.dtype, np.integer):
            return np.where(valid[:, None], value, 0).astype(sensor.dtype), valid
        value = np.rint(value)
        value = np.where(valid[:, None], _clipped(value, sensor), 0)
        return value.astype(sensor.dtype), valid

    def _is_nodata(self, raw: np.ndarray) -> np.ndarray:
        """(T, C, H, W) -> bool (T, H, W): whether any band has the number of no observation."""
        if self.nodata is None:
            return np.zeros((len(raw), *raw.shape[2:]), bool)
        if np.isnan(self.nodata):
            return np.isnan(raw).any(axis=1)
        return (raw == self.nodata).any(axis=1)

    def _decibel(self, value: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.units == "db":
            return value.astype(np.float32), valid
        if self.units == "amplitude":
            value = np.where(value > 0, value, 0) ** 2
        decibel, positive = sar_to_db(value)
        return decibel, positive & valid

    @property
    def _is_plain(self) -> bool:
        """Whether the numbers are in the units of the archive already."""
        return self.scale is None and self.units == "db"


def _clipped(value: np.ndarray, sensor: Modality) -> np.ndarray:
    """The nearest numbers that the sensor's type has and that do not mean "no observation"."""
    limits = np.iinfo(sensor.dtype)
    lowest = limits.min
    highest = limits.max
    nodata = sensor.nodata
    if nodata == lowest:
        lowest += 1
    if nodata == highest:
        highest -= 1
    value = value.clip(lowest, highest)
    if nodata is None or not lowest <= nodata <= highest:
        return value
    return np.where(value == nodata, nodata + 1, value)
