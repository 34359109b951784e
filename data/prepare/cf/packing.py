"""How the numbers of a variable are stored: packed, unsigned, missing, out of range."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from data.errors import InputError
from data.prepare.cf.variable import Number, Variable

# CF's own two, and what zarr and raster writers call the same.
MISSING = ("_FillValue", "missing_value", "fill_value", "nodata", "NoData")
# Packed numbers that a valid range leaves at least. A shorter one was written for the unpacked
# numbers, against the conventions: [0, 1] of reflectance.
FEWEST_VALID = 10


@dataclass(frozen=True, kw_only=True)
class Packing:
    """``stored * scale + offset`` is what a variable means."""

    dtype: np.dtype  # as which the stored numbers are read
    scale: float | None = None  # None: the file says nothing, or that nothing changes
    offset: float = 0.0
    missing: tuple[Number, ...] = ()  # stored numbers of no observation
    lowest: Number | None = None  # stored numbers outside of these are no observation
    highest: Number | None = None

    def as_stored(self, array: np.ndarray) -> np.ndarray:
        """The numbers of a file in the type in which it means them, same shape."""
        if array.dtype == self.dtype:
            return array
        return array.view(self.dtype)

    def present(self, stored: np.ndarray) -> np.ndarray:
        """Which stored numbers are observations, bool of the same shape."""
        present = np.ones(stored.shape, bool)
        if stored.dtype.kind == "f":
            present &= ~np.isnan(stored)
        if self.lowest is not None:
            present &= stored >= self.lowest
        if self.highest is not None:
            present &= stored <= self.highest
        with np.errstate(over="ignore"):  # a number beyond the type is infinite in it
            for number in self.missing:
                present &= stored != number
        return present

    def unpacked(self, array: np.ndarray) -> np.ndarray:
        """Numbers of a file -> what they mean, float64 of the same shape, NaN where missing."""
        stored = self.as_stored(array)
        scale = 1.0
        if self.scale is not None:
            scale = self.scale
        return np.where(
            self.present(stored), stored.astype(np.float64) * scale + self.offset, np.nan
        )


def packing_of(variable: Variable, *, unwritten: bool = False) -> Packing:
    """What the attributes of a variable say of its numbers.

    Args:
        variable: the variable.
        unwritten: whether what the file gives for chunks that were never written counts as no
            observation, too, where no attribute says what does.

    Raises:
        InputError: no numbers, or attributes that are no numbers or contradict.
    """
    return _Attributes(variable).packing(unwritten=unwritten)


@dataclass(frozen=True)
class _Attributes:
    """The attributes of one variable that speak of its numbers."""

    variable: Variable

    def packing(self, *, unwritten: bool) -> Packing:
        variable = self.variable
        if variable.dtype.kind not in "biuf":
            raise InputError(f"{variable.where}: expected numbers, found {variable.dtype}")
        scale, offset = self._scale_and_offset()
        missing = []
        for key in MISSING:
            for number in variable.numbers(key):
                missing += self._as_stored(key, number)
        if unwritten and not missing and variable.stored_fill is not None:
            missing += self._as_stored("fill_value", variable.stored_fill)
        lowest, highest = self._valid_range(is_packed=scale is not None)
        return Packing(
            dtype=self.dtype,
            scale=scale,
            offset=offset,
            missing=tuple(missing),
            lowest=lowest,
            highest=highest,
        )

    @cached_property
    def dtype(self) -> np.dtype:
        """The variable's type, or its unsigned or signed twin where ``_Unsigned`` says so."""
        dtype = self.variable.dtype
        text = self.variable.text("_Unsigned").lower()
        if not text:
            return dtype
        if text not in ("true", "false") or dtype.kind not in "iu":
            raise self._fault("_Unsigned", f"expected true or false of integers, found {text!r}")
        kind = "i"
        if text == "true":
            kind = "u"
        return np.dtype(f"{dtype.byteorder}{kind}{dtype.itemsize}")

    def _scale_and_offset(self) -> tuple[float | None, float]:
        scale = self.variable.number("scale_factor")
        offset = self.variable.number("add_offset")
        if scale is not None and (scale == 0 or not np.isfinite(scale)):
            raise self._fault("scale_factor", f"expected a number other than 0, found {scale}")
        if offset is not None and not np.isfinite(offset):
            raise self._fault("add_offset", f"expected a number, found {offset}")
        # Integers that are multiplied by 1 are packed in the unit of the archive, or in none.
        if scale == 1 and not offset and self.dtype.kind in "biu":
            scale = None
        if scale is not None:
            scale = float(scale)
        return scale, float(offset or 0.0)

    def _as_stored(self, key: str, number: Number) -> list[Number]:
        """A number of no observation as it is stored; empty for one that integers never hold."""
        if self.dtype.kind not in "iu":
            return [number]
        if not np.isfinite(number):
            return []
        limits = np.iinfo(self.dtype)
        if "_Unsigned" in self.variable.attributes:  # the attribute may have the type of the file
            span = 2 ** (8 * self.dtype.itemsize)
            number = (number - limits.min) % span + limits.min
        if number != int(number) or not limits.min <= number <= limits.max:
            raise self._fault(
                key, f"{number} cannot stand in {self.dtype}, so what is missing is unknown"
            )
        return [int(number)]

    def _valid_range(self, *, is_packed: bool) -> tuple[Number | None, Number | None]:
        """The lowest and the highest valid number as stored; None where there is no limit."""
        limits = self._limits()
        low = limits.get("valid_min")
        high = limits.get("valid_max")
        if low is not None and high is not None and low > high:
            raise self._fault(self._range_keys, f"expected a range, found {low} to {high}")
        is_short = high is not None and high - max(low or 0, 0) < FEWEST_VALID
        is_fractional = any(limit != np.rint(limit) for limit in limits.values())
        if is_packed and self.dtype.kind in "iu" and (is_short or is_fractional):
            raise self._fault(
                self._range_keys,
                f"expected a range of the packed {self.dtype}, found {sorted(limits.values())}, "
                "which looks like one of the numbers after scale_factor",
            )
        return low, high

    def _limits(self) -> dict[str, Number]:
        """``valid_min`` and ``valid_max``, which ``valid_range`` may say together."""
        stated = {}
        for key in ("valid_min", "valid_max"):
            number = self.variable.number(key)
            if number is not None:
                stated[key] = self._limit(number)
        both = [self._limit(number) for number in self.variable.numbers("valid_range")]
        if not both:
            return stated
        if len(both) != 2:
            raise self._fault("valid_range", f"expected two numbers, found {both}")
        limits = dict(zip(("valid_min", "valid_max"), both))
        if {**limits, **stated} != limits:
            raise self._fault("valid_range", f"{both} contradicts {stated}")
        return limits

    def _limit(self, number: Number) -> Number:
        """A limit as stored: of unsigned numbers it may have the signed type of the file."""
        if np.isnan(number):
            raise self._fault(self._range_keys, "expected numbers, found NaN")
        if "_Unsigned" in self.variable.attributes and self.dtype.kind == "u" and number < 0:
            return number + 2 ** (8 * self.dtype.itemsize)
        return number

    @property
    def _range_keys(self) -> str:
        keys = ("valid_range", "valid_min", "valid_max")
        return " and ".join(key for key in keys if key in self.variable.attributes)

    def _fault(self, key: str, text: str) -> InputError:
        return InputError(f"{self.variable.where}: attribute {key}: {text}; correct the attribute")
