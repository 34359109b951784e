"""What Sentinel-2 Level-2A products have in common, whatever file holds them."""

import re
from collections.abc import Iterable

FINE_BANDS = ("B02", "B03", "B04", "B08")  # 10 m pixels
COARSE_BANDS = ("B05", "B06", "B07", "B8A", "B11", "B12")  # 20 m pixels
# Codes of the scene classification (SCL) that hide a pixel: no data, defective, shadow, cloud of
# medium and of high probability, cirrus, snow.
CLOUDY = (0, 1, 3, 8, 9, 10, 11)
NO_DATA = 0  # code of the scene classification
SATURATED = 65_535  # raw number of a pixel whose brightness is not known

# Reflectance is (raw + offset) / 10,000. The agency's products have this offset since baseline
# 04.00: all that were acquired from this day on, and older ones that were processed again.
OFFSET = -1000.0
FIRST_BASELINE_WITH_OFFSET = 400
FIRST_DAY_WITH_OFFSET = "2022-01-25"
# A product that a user made with Sen2Cor says 99.99, which tells nothing of the offset.
BASELINE_OF_USERS = 9999
IN_NAMES = re.compile(r"_N(\d\d)\.?(\d\d)(?![0-9])")  # of products, granules and data takes
PLAIN = re.compile(r"N?(\d{1,2})\.(\d\d)|N?(\d\d)(\d\d)")


def baseline_of(value: object) -> int | None:
    """A processing baseline in hundredths: 509 for "05.09", 5.09 or "N0509"; None for no such."""
    if isinstance(value, float):
        return round(value * 100)
    match = PLAIN.fullmatch(str(value).strip())
    if match is None:
        return None
    return int("".join(digits for digits in match.groups() if digits))


def baseline_in_name(name: object) -> int | None:
    """The processing baseline that a product's name holds (..._N0509_...), in hundredths."""
    match = IN_NAMES.search(str(name))
    if match is None:
        return None
    return int("".join(match.groups()))


def has_offset(baseline: int) -> bool:
    """Whether the agency's products of a baseline have the offset."""
    return FIRST_BASELINE_WITH_OFFSET <= baseline < BASELINE_OF_USERS


def baseline_text(baseline: int) -> str:
    """A baseline as products write it: 05.09."""
    return f"{baseline // 100:02}.{baseline % 100:02}"


def first_known(values: Iterable[int | None]) -> int | None:
    """The first of several baselines that is known."""
    return next((value for value in values if value is not None), None)
