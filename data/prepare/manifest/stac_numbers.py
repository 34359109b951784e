"""What a STAC item says of the numbers of its bands: scale, offset, and that of no observation.

Catalogues of Sentinel-2 disagree on the offset that products have since baseline 04.00: some leave
it in the pixels, some have added it, and their items do not always know which. It is found from
all that an item says, and refused where that is no sense or two senses.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pystac

from data.prepare.contract.radiometry import REFLECTANCE_UNIT
from data.prepare.contract.sentinel2 import (
    BASELINE_OF_USERS,
    FIRST_DAY_WITH_OFFSET,
    OFFSET,
    baseline_in_name,
    baseline_of,
    baseline_text,
    first_known,
    has_offset,
)

BASELINES = ("s2:processing_baseline", "sentinel:processing_baseline")
VERSION = "processing:version"  # of the product, or of a program
PRODUCT_NAMES = (
    "s2:product_uri",
    "sentinel:product_id",
    "sentinel2:product_id",
    "product:name",
    "title",
)
DATA_TAKES = ("s2:datatake_id", "s2:datastrip_id", "s2:granule_id", "eopf:datatake_id")
APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "boa_offset_applied")
REMEDY = "give 'scale' and 'offset' in 'skysense' (0.0001 and -0.1, or 0 if the pixels have it)"
# Names of the unit of reflectance, which has none.
NO_UNIT = ("", "1", "none", "unitless", "dimensionless", "reflectance", "n/a")
LARGEST_SCALE = 0.01  # of reflectance: per cent


@dataclass(frozen=True)
class Numbers:
    """How the numbers of a band are read; None: not said."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None

    def keys(self) -> dict[str, float]:
        """As keys of a reader."""
        stated = {"scale": self.scale, "offset": self.offset, "nodata": self.nodata}
        return {key: value for key, value in stated.items() if value is not None}


def numbers_of_bands(asset: pystac.Asset, count: int) -> list[Numbers]:
    """What an asset says of each of its ``count`` bands.

    Raises:
        ValueError: text in the place of a number, a list of another length, or two different
            numbers for one band.
    """
    return [
        Numbers(
            scale=_stated(asset, "scale", band, count),
            offset=_stated(asset, "offset", band, count),
            nodata=_stated(asset, "nodata", band, count),
        )
        for band in range(count)
    ]


def units_of(asset: pystac.Asset) -> list[str]:
    """The units that an asset names, of all bands or of one."""
    fields = asset.extra_fields
    objects = [fields, *_bands(fields, "raster:bands"), *_bands(fields, "bands")]
    units = [entry.get("unit", entry.get("raster:unit")) for entry in objects]
    return [unit for unit in units if isinstance(unit, str)]


def _stated(asset: pystac.Asset, key: str, band: int, count: int) -> float | None:
    """A number of a band: of its own entry in a list of bands, else of the asset."""
    fields = asset.extra_fields
    names = (key, f"raster:{key}")
    values = []
    for field in ("raster:bands", "bands"):
        entries = _bands(fields, field)
        own = [entry[name] for entry in entries for name in names if name in entry]
        if own and len(entries) != count:
            raise ValueError(
                f"{field}: expected an entry for each of {count} bands, found {entries}"
            )
        if own:
            values += [entries[band][name] for name in names if name in entries[band]]
    if not values:
        values = [fields[name] for name in names if name in fields]
    numbers = {_number(value, key) for value in values if value is not None}
    if len(numbers) > 1:
        raise ValueError(f"{key}: expected one number of a band, found {sorted(numbers)}")
    return next(iter(numbers), None)


def _bands(fields: dict[str, Any], name: str) -> list[dict]:
    """The objects of a list of bands; none where there is no such list."""
    entries = fields.get(name)
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return []
    return entries


def _number(value: object, key: str) -> float:
    """A number, or one of the words that STAC has for numbers beyond JSON."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if key == "nodata" and str(value).lower() in ("nan", "inf", "-inf"):
        return float(str(value))
    raise ValueError(f"{key}: expected a number, found {value!r}")


@dataclass(frozen=True)
class Sentinel2Offset:
    """What a Sentinel-2 item says of the offset beside the numbers of its bands."""

    baseline: int | None  # in hundredths
    applied: bool | None  # whether the pixels have the offset already
    day: str  # of the acquisition, ISO

    def of_asset(self, asset: pystac.Asset) -> "Sentinel2Offset":
        """What it says of one asset: offsets are added to GeoTIFFs, JPEG 2000 is the agency's."""
        if "jp2" in str(asset.media_type).lower():
            return replace(self, applied=None)
        return self

    def complete(self, numbers: Numbers) -> Numbers:
        """The numbers of a band with the offset that they need.

        Raises:
            ValueError: the item contradicts itself, or does not say whether the pixels have the
                offset.
        """
        scale = REFLECTANCE_UNIT
        if numbers.scale is not None:
            scale = numbers.scale
        if not 0 < scale <= LARGEST_SCALE:
            raise ValueError(
                f"scale {scale:g}: expected about {REFLECTANCE_UNIT:g}, for raw x scale + offset "
                f"is reflectance; {REMEDY}"
            )
        offset = self._offset(numbers.offset)
        if numbers.scale is None and offset == 0:
            return Numbers(nodata=numbers.nodata)
        return Numbers(scale=scale, offset=offset, nodata=numbers.nodata)

    def _offset(self, stated: float | None) -> float:
        """The offset in reflectance."""
        usual = OFFSET * REFLECTANCE_UNIT
        if self.applied:
            # Earth Search goes on saying the offset that it has added itself.
            if stated is not None and stated != 0 and not math.isclose(stated, usual):
                raise ValueError(
                    f"offset {stated:g}: expected {usual:g} or 0, for the item says that the "
                    f"offset is applied; {REMEDY}"
                )
            return 0.0
        if self.baseline is None:
            return self._offset_without_baseline(stated)
        baseline = f"processing baseline {baseline_text(self.baseline)}"
        if self.baseline == BASELINE_OF_USERS:
            if stated is None:
                raise ValueError(f"{baseline} does not tell the offset; {REMEDY}")
            return stated
        if not has_offset(self.baseline):
            if stated:
                raise ValueError(
                    f"offset {stated:g} contradicts {baseline}, whose products have none; {REMEDY}"
                )
            return 0.0
        if stated == 0:
            raise ValueError(
                f"offset 0 contradicts {baseline}, whose products have {usual:g}, for nothing says "
                f"that it is applied; {REMEDY}"
            )
        if stated is None:
            return usual
        return stated

    def _offset_without_baseline(self, stated: float | None) -> float:
        if stated is not None:
            return stated
        if self.day < FIRST_DAY_WITH_OFFSET:
            return 0.0
        if self.applied is False:
            return OFFSET * REFLECTANCE_UNIT
        raise ValueError(
            f"the item says no processing baseline, and whether the offset of {OFFSET:g} that "
            f"products have since {FIRST_DAY_WITH_OFFSET} is in its pixels; {REMEDY}"
        )


def sentinel2_offset(item: pystac.Item, day: str) -> Sentinel2Offset:
    """What an item says of the offset.

    Raises:
        ValueError: it names baselines of which one has the offset and one has not, or its flags
            contradict each other.
    """
    properties = item.properties
    stated = [_stated_baseline(properties, name) for name in BASELINES]
    stated.append(baseline_of(properties.get(VERSION)))
    names = [properties.get(name) for name in PRODUCT_NAMES]
    named = [baseline_in_name(name) for name in (item.id, *names)]
    # A data take may have been processed to Level-1C by an earlier baseline.
    last = [baseline_in_name(properties.get(name)) for name in DATA_TAKES]
    baselines = {baseline for baseline in (*stated, *named) if baseline is not None}
    if len({has_offset(baseline) for baseline in baselines}) > 1:
        found = sorted(baseline_text(baseline) for baseline in baselines)
        raise ValueError(f"the item names the processing baselines {found}; {REMEDY}")
    flags = {properties[name] for name in APPLIED if properties.get(name) is not None}
    if not flags <= {True, False}:
        raise ValueError(f"{APPLIED}: expected true or false, found {flags}; {REMEDY}")
    if len(flags) > 1:
        raise ValueError(f"{APPLIED}: the item says true and false; {REMEDY}")
    return Sentinel2Offset(
        baseline=first_known([*stated, *named, *last]), applied=next(iter(flags), None), day=day
    )


def _stated_baseline(properties: dict[str, Any], name: str) -> int | None:
    """A baseline that a property says; None without the property."""
    value = properties.get(name)
    baseline = baseline_of(value)
    if value is not None and baseline is None:
        raise ValueError(f"{name} {value!r}: expected a processing baseline such as '05.09'")
    return baseline


def common_or_each(numbers: dict[str, Numbers]) -> dict[str, Any]:
    """The keys of a reader for the numbers of its bands: for all of them, or for each."""
    if _are_equal(numbers.values()):
        return next(iter(numbers.values())).keys()
    return {"band_numbers": {band: own.keys() for band, own in numbers.items()}}


def _are_equal(numbers: Iterable[Numbers]) -> bool:
    return len({repr(own) for own in numbers}) == 1  # NaN is equal to NaN here
