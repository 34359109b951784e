"""From the numbers of a file to the units of the archive: bytes, reflectance x 1e4, dB."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.prepare.contract.faults import sar_to_db
from data.suggest import did_you_mean
from data.tiles.modalities import BYTE, DECIBEL, MODALITIES, REFLECTANCE, Modality

UNITS = ("db", "power", "amplitude")  # of SAR; amplitude is the square root of power
REFLECTANCE_UNIT = 1e-4  # reflectance of one unit of the archive
# Numbers that stand for no observation although no file says so (-9999, 9.97e36) lie beyond these.
LEAST_REFLECTANCE = -0.25  # corrections for the air go down to -0.2 over water
SATURATED = 65_535  # in products of Sentinel-2; elsewhere it stands for no observation
BEYOND_MEASURE = 1e15  # 1e20, 9.97e36 and 3.4e38 are fill values in any unit
LEAST_DECIBEL = -9000.0  # dB x 100 lie above, and are told where units are checked


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
        self._check_type(where, sensor, np.dtype(dtype))

    def _check_type(self, where: object, sensor: Modality, dtype: np.dtype) -> None:
        """Raise InputError for a type whose numbers cannot be those of the sensor.

        Whether numbers of a wider type fit is known when they are read.
        """
        if dtype.kind not in "iuf":
            raise InputError(
                f"{where}: expected real numbers of {sensor.key}, found {dtype}; convert the file "
                "first (complex numbers to power or dB)"
            )
        self._check_nodata(where, dtype)
        if self._is_plain and sensor.unit == REFLECTANCE and dtype.itemsize == 1:
            raise InputError(
                f"{where}: expected {sensor.key} as {sensor.dtype}, found {dtype}, of which the "
                "largest number is reflectance 0.0255; give 'scale' (raw x scale + offset is "
                "reflectance)"
            )
        # Counts of a camera in 11 to 16 bits pass for bytes where a scene is dark.
        is_deep = dtype.kind == "f" or dtype.itemsize == 2
        if self._is_plain and sensor.unit == BYTE and is_deep:
            raise InputError(
                f"{where}: expected {sensor.key} as {sensor.dtype}, found {dtype}; give 'scale' "
                "(raw x scale + offset is a byte: 0.1245 for 11 bits, 0.0039 for 16, 255 for 0 to "
                "1, 1 for bytes)"
            )

    def _check_nodata(self, where: object, dtype: np.dtype) -> None:
        """Raise InputError for a key ``nodata`` that no number of an integer ``dtype`` can be.

        The file then has another one, which would be taken for an observation: -9999 that was
        written as unsigned is 55537. NaN says no more than that all integers are numbers.
        """
        if self.nodata is None or dtype.kind == "f" or np.isnan(self.nodata):
            return
        limits = np.iinfo(dtype)
        is_whole = self.nodata == np.rint(self.nodata)
        if not is_whole or not limits.min <= self.nodata <= limits.max:
            raise InputError(
                f"{where}: nodata {self.nodata:g}: expected a number that {dtype} holds, from "
                f"{limits.min} to {limits.max}; give the one that the file has, or leave it out"
            )

    def in_units(
        self, raw: np.ndarray, sensor: Modality, *, where: object = "the source"
    ) -> tuple[np.ndarray, np.ndarray]:
        """Convert raw numbers to the units and the type of the archive.

        An observed reflectance at or below zero becomes 1, because 0 means no observation.

        Args:
            raw: (T, C, H, W) as read.
            sensor: the sensor that they are of.
            where: the file, for errors.

        Returns:
            The converted numbers (T, C, H, W), and which pixels are observations, bool (T, H, W).

        Raises:
            InputError: numbers that are in the unit of the archive, but do not fit its type.
        """
        return self.convert(raw, self.observed(raw, sensor), sensor, where=where)

    def observed(
        self, raw: np.ndarray, sensor: Modality, *, file_nodata: Sequence[float | None] = ()
    ) -> np.ndarray:
        """See ``observations``."""
        count = raw.shape[1]
        own = [*file_nodata] or [None] * count
        return observations(raw, sensor, nodata=(own, [self.nodata] * count))

    def convert(
        self, raw: np.ndarray, valid: np.ndarray, sensor: Modality, *, where: object
    ) -> tuple[np.ndarray, np.ndarray]:
        """``in_units`` where it is known which pixels (T, H, W) are ``valid``."""
        if self._is_plain and np.can_cast(raw.dtype, sensor.dtype):
            if sensor.unit == DECIBEL:
                return self._decibel(raw, valid)
            return raw.astype(sensor.dtype, copy=False), valid
        if self._is_plain and sensor.unit == REFLECTANCE and raw.dtype.kind == "f":
            _need_ten_thousandths(raw, valid, where)
        clean = np.where(valid[:, None], raw, 0).astype(np.float64)
        scale = 1.0
        if self.scale is not None:
            scale = self.scale
        value = clean * scale + self.offset
        if sensor.unit == DECIBEL:
            return self._decibel(value, valid)
        if sensor.unit == REFLECTANCE and not self._is_plain:
            value = value / REFLECTANCE_UNIT
        if not np.issubdtype(sensor.dtype, np.integer):
            return np.where(valid[:, None], value, 0).astype(sensor.dtype), valid
        value = np.rint(value)
        if self._is_plain:
            _need_room(value, sensor, where)
        if sensor.unit == REFLECTANCE:
            most = np.iinfo(sensor.dtype).max
            possible = (value * REFLECTANCE_UNIT > LEAST_REFLECTANCE) & (value <= most)
            self._need_mostly_possible(value * REFLECTANCE_UNIT, valid, possible, where=where)
            valid = valid & possible.all(axis=1)
        value = np.where(valid[:, None], _clipped(value, sensor), 0)
        return value.astype(sensor.dtype), valid

    def _need_mostly_possible(
        self, reflectance: np.ndarray, valid: np.ndarray, possible: np.ndarray, *, where: object
    ) -> None:
        """Raise InputError when most observed numbers (T, C, H, W) are no reflectance."""
        observed = reflectance[np.broadcast_to(valid[:, None], reflectance.shape)]
        impossible = valid[:, None] & ~possible
        if impossible.sum() > observed.size / 2:
            raise InputError(
                f"{where}: expected reflectance, found numbers from {observed.min():g} to "
                f"{observed.max():g} with scale {self.scale} and offset {self.offset:g}; correct "
                "'scale' and 'offset', or give 'nodata'"
            )

    def _decibel(self, value: np.ndarray, valid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if self.units == "db":
            decibel = value.astype(np.float32, copy=False)
            possible = np.isfinite(decibel) & (decibel > LEAST_DECIBEL)
            return decibel, valid & possible.all(axis=1)
        if self.units == "amplitude":
            value = np.where(value > 0, value, 0) ** 2
        decibel, positive = sar_to_db(value)
        return decibel, positive & valid

    @property
    def is_unchanged(self) -> bool:
        """Whether raw numbers mean what they are, because there is no scale or it is 1."""
        return self.scale in (None, 1) and not self.offset

    @property
    def _is_plain(self) -> bool:
        """Whether the numbers are in the units of the archive already."""
        return self.scale is None and self.units == "db"


def observations(
    raw: np.ndarray, sensor: Modality, *, nodata: Sequence[Sequence[float | None]]
) -> np.ndarray:
    """Which pixels are observations.

    A pixel of a picture is missing when all its bands are, so that one black band does not cost a
    pixel; one of any other sensor when any band is. Reflectance 0 is missing as well. Only if
    another number says so, as in files of negative numbers, 0 is one like any other, except where
    all bands have it.

    Args:
        raw: (T, C, H, W) as read.
        sensor: the sensor that they are of.
        nodata: the numbers of no observation, one a band: those of the file, those of the manifest.

    Returns:
        bool (T, H, W).
    """
    valid = np.isfinite(raw).all(axis=1)  # T H W
    if raw.dtype.kind == "f":
        valid &= (np.abs(raw) < BEYOND_MEASURE).all(axis=1)
    for numbers in nodata:
        missing = np.zeros(raw.shape, bool)  # T C H W
        for band, number in enumerate(numbers):
            if number is not None:
                missing[:, band] = raw[:, band] == number
        if sensor.unit == BYTE:  # a picture
            valid &= ~missing.all(axis=1)
        else:
            valid &= ~missing.any(axis=1)
    if sensor.unit == REFLECTANCE and raw.dtype.newbyteorder("=") == np.uint16:
        valid &= (raw != SATURATED).all(axis=1)
    if sensor.nodata is not None and not np.isnan(sensor.nodata):
        missing = raw == sensor.nodata  # T C H W
        if sensor.nodata == 0 and _has_other_nodata(raw.dtype, nodata):
            valid &= ~missing.all(axis=1)
        else:
            valid &= ~missing.any(axis=1)
    return valid


def _has_other_nodata(dtype: np.dtype, nodata: Sequence[Sequence[float | None]]) -> bool:
    """Whether numbers that may be negative have another number than 0 for no observation."""
    stated = set().union(*nodata) - {None, 0}
    return dtype.kind != "u" and bool(stated)


def _need_ten_thousandths(raw: np.ndarray, valid: np.ndarray, where: object) -> None:
    """Raise InputError for a band of fractions below 1, which would all be rounded to nothing.

    Args:
        raw: (T, C, H, W) as read, without a scale.
        valid: which pixels are observations, bool (T, H, W).
        where: the file, for errors.
    """
    for band in np.moveaxis(raw, 1, 0):  # T H W
        observed = band[valid]
        is_fraction = (observed > 0) & (observed < 1)
        if is_fraction.sum() > observed.size / 2:
            raise InputError(
                f"{where}: expected reflectance x 10,000, found numbers from {observed.min():g} to "
                f"{observed.max():g} in a band; likely reflectance from 0 to 1: give 'scale': 1"
            )


def _need_room(value: np.ndarray, sensor: Modality, where: object) -> None:
    """Raise InputError for whole numbers that the type of a sensor cannot hold."""
    limits = np.iinfo(sensor.dtype)
    lowest: float = limits.min
    if sensor.unit == REFLECTANCE:
        lowest = -np.inf  # dark ground
    if value.size and (value.max() > limits.max or value.min() < lowest):
        raise InputError(
            f"{where}: expected {sensor.key} as {sensor.dtype}, found numbers from "
            f"{value.min():g} to {value.max():g}; if its unit is another, give 'scale', if one "
            "means no observation, 'nodata'"
        )


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
