"""What one tile shows by itself: numbers that its unit cannot have, dead bands, wrong masks, dates.

The limits are physical, or far outside what real tiles of all kinds have shown; docs/audit.md says
which. What depends on the other tiles is judged in ``data/audit/rules/comparison.py``.
"""

from collections.abc import Sequence
from datetime import date

import numpy as np

from data.audit.measure.fault import LOOK, WRONG, Fault
from data.audit.measure.profile import JUMP, Profile
from data.tiles.modalities import MODALITIES
from data.tiles.sensor import BYTE, DECIBEL, REFLECTANCE, Modality

UNIT = "unit"
CONSTANT = "constant band"
MASK = "mask"
DATE = "date"
OFFSET = "offset"
BIT_DEPTH = "bit depth"
POLARISATION = "polarisations exchanged"

LEAST_PIXELS = 16  # fewer equal pixels prove nothing
# Reflectance x 1e4. Fresh snow and clouds stay below 1.3; ten times a forest is above 2.
BRIGHTEST = 16_000
# Numbers of 0..1 without the factor of 1e4; the darkest water has more in a blue pixel.
DARKEST = 3
FLOOR = 1  # what a reflectance at or below zero became
# Baseline 04.00 of Sentinel-2 stores reflectance 0 as 1000: then no band has a pixel below, but for
# noise, and the dark bands come near it. A bright desert is as bright, but then few bands are near.
ADDED = 1000
NOISE = 50
NEAR_ADDED = 1700
BANDS_NEAR = 3
SEEN = 300  # reflectance x 1e4 that is light, not noise
QUIETEST = -50.0  # dB; the noise floor of Sentinel-1 is about -35
NUMBERS = 20.0  # power of 20 would be 13 dB: a whole tile of corner reflectors
OPEN_WATER = -20.0  # dB in VV; darker surfaces show the noise floor, where VH may exceed VV
GAP = -2.0  # dB, VV over VH
BLACKEST = 24  # bytes: nine of ten aerial images reach 120, the darkest of 2000 reached 57
WHITEST = 254
WRAPPED = 0.08  # share of jumps; the roughest of 2000 aerial images has 0.07
FLAT = 0.2  # of the other bands' deviation; the flattest band of 2000 images has 0.33
TEXTURE = 8.0  # bytes: deviation of an image that has something to show
EMPTY = 0.5  # share of the valid pixels without an observation
# Preparation keeps frames of which half is valid; of such a tile the inverse has less.
INVERTED = 0.35
FEW = 0.5
FAR_YEARS = 3
FAR_MADS = 10
YEAR = 365.25
# The first of any use: before it no such sensor flew.
LAUNCHES = {"sentinel-2": date(2015, 6, 23), "sentinel-1": date(2014, 4, 3)}


def pixel_faults(name: str, profile: Profile) -> list[Fault]:
    """What the numbers of one sensor of a tile say.

    Args:
        name: key of the sensor.
        profile: of its valid pixels.
    """
    faults = mask_faults(name, profile)
    if profile.pixels < LEAST_PIXELS or faults:
        return faults
    sensor = MODALITIES[name]
    faults = constant_bands(name, profile)
    if sensor.unit == REFLECTANCE:
        faults += reflectance_faults(sensor, profile)
    if sensor.unit == DECIBEL:
        faults += decibel_faults(sensor, profile)
    if sensor.unit == BYTE:
        faults += byte_faults(sensor, profile)
    return faults


def mask_faults(name: str, profile: Profile) -> list[Fault]:
    """A mask that hides everything, or shows what is nothing."""
    valid = f"{100 * profile.valid_share:.0f} % of the pixels are marked valid"
    if not profile.pixels:
        return [Fault(MASK, name, WRONG, "no pixel is marked valid; is the mask inverted?", 1.0)]
    if profile.empty_share > EMPTY:
        reason = (
            f"{valid}, and {100 * profile.empty_share:.0f} % of these show no observation; is the "
            "mask inverted, or missing?"
        )
        return [Fault(MASK, name, WRONG, reason, profile.empty_share)]
    if profile.valid_share < FEW:
        verdict = LOOK
        if profile.valid_share < INVERTED:
            verdict = WRONG
        reason = f"{valid}, expected at least half of every frame; is the mask inverted?"
        return [Fault(MASK, name, verdict, reason, 1 - profile.valid_share)]
    return []


def constant_bands(name: str, profile: Profile) -> list[Fault]:
    """Bands with one number everywhere, while others vary."""
    sensor = MODALITIES[name]
    if sensor.unit == BYTE:  # JPEG spreads the texture of a band over the others
        others = np.array([np.median(np.delete(profile.std, i)) for i in range(len(sensor.bands))])
        flat = (profile.std < FLAT * others) & (others > TEXTURE)
    else:
        flat = profile.std == 0
    if not flat.any():
        return []
    names = [band for band, is_flat in zip(sensor.bands, flat) if is_flat]
    values = ", ".join(
        f"{band} {value:g}" for band, value in zip(sensor.bands, profile.median) if band in names
    )
    reason = f"{values} in all of {profile.pixels} pixels; is the band empty, or filled?"
    return [Fault(CONSTANT, name, WRONG, reason, float(flat.sum()))]


def reflectance_faults(sensor: Modality, profile: Profile) -> list[Fault]:
    """Reflectance that no surface has."""
    brightest = float(profile.median.max())
    if brightest > BRIGHTEST:
        reason = (
            f"median reflectance {brightest / 1e4:.2f}, expected at most {BRIGHTEST / 1e4:g}; are "
            "the numbers ten times too large?"
        )
        return [Fault(UNIT, sensor.key, WRONG, reason, brightest / BRIGHTEST)]
    if profile.high.max() <= DARKEST:
        reason = (
            f"98 % of all pixels are at most {profile.high.max():g}, expected reflectance x 1e4; "
            "are the numbers between 0 and 1?"
        )
        return [Fault(UNIT, sensor.key, WRONG, reason, 1.0)]
    visible = profile.median
    if sensor.display.true_colour:
        visible = profile.median[[sensor.bands.index(b) for b in sensor.display.true_colour]]
    if visible.max() <= FLOOR and brightest > SEEN:
        reason = (
            f"half of the visible pixels are at the floor, the brightest band has {brightest:g}; "
            "was an offset subtracted twice?"
        )
        return [Fault(UNIT, sensor.key, WRONG, reason, 1.0)]
    if profile.low.min() >= ADDED - NOISE and (profile.low <= NEAR_ADDED).sum() >= BANDS_NEAR:
        reason = (
            f"98 % of the pixels have at least {profile.low.min():.0f} in every band, and the dark"
            f" bands hardly more; was the offset of {ADDED} left in?"
        )
        return [Fault(OFFSET, sensor.key, LOOK, reason, float(profile.low.min()))]
    return []


def decibel_faults(sensor: Modality, profile: Profile) -> list[Fault]:
    """Backscatter that is not in dB, or whose polarisations changed places."""
    medians = ", ".join(f"{b} {m:.3g}" for b, m in zip(sensor.bands, profile.median))
    if profile.median.min() < QUIETEST:
        reason = f"medians {medians}, expected dB above {QUIETEST:g}; are they dB x 100?"
        return [Fault(UNIT, sensor.key, WRONG, reason, float(-profile.median.min()))]
    if profile.low.min() >= 0:
        likely = "linear power or amplitude"
        if profile.median.max() > NUMBERS:
            likely = "digital numbers"
        reason = f"medians {medians} and nothing below zero, expected dB; are they {likely}?"
        return [Fault(UNIT, sensor.key, WRONG, reason, float(profile.median.max()))]
    if {"VV", "VH"} <= set(sensor.bands):
        vv = float(profile.median[sensor.bands.index("VV")])
        gap = vv - float(profile.median[sensor.bands.index("VH")])
        if gap < GAP and vv > OPEN_WATER:
            reason = f"VV is {-gap:.1f} dB below VH, expected 4 to 10 dB above it"
            return [Fault(POLARISATION, sensor.key, WRONG, reason, -gap)]
    return []


def byte_faults(sensor: Modality, profile: Profile) -> list[Fault]:
    """Images whose numbers were brought into bytes wrongly."""
    brightest = float(profile.high.max())
    reason = ""
    if brightest < BLACKEST:
        reason = (
            f"98 % of all numbers are below {brightest + 1:.0f} of 255; were 11 or 12 bits taken "
            "for 16?"
        )
    elif profile.median.min() >= WHITEST:
        reason = "half of all pixels are white; were numbers of more than 8 bits cut at 255?"
    elif profile.jumps > WRAPPED:
        reason = (
            f"{100 * profile.jumps:.0f} % of neighbours differ by more than {JUMP}, expected less "
            f"than {100 * WRAPPED:.0f} %; did numbers of more than 8 bits wrap around?"
        )
    if not reason:
        return []
    return [Fault(BIT_DEPTH, sensor.key, WRONG, reason, 1.0)]


def date_faults(name: str, days: Sequence[str], *, is_uncertain: bool, today: date) -> list[Fault]:
    """Dates that cannot be, and frames far from the others of their series.

    Args:
        name: key of the sensor.
        days: ISO day of each frame.
        is_uncertain: whether the tile says that some of its dates are stand-ins.
        today: no frame is later.
    """
    dates = [date.fromisoformat(day) for day in days]
    impossible = WRONG
    if is_uncertain:
        impossible = LOOK
    for platform in MODALITIES[name].catalogue.platforms:
        launch = LAUNCHES.get(platform)
        if launch is not None and dates[0] < launch:
            reason = f"{dates[0]} lies before the first image of {platform}, {launch}"
            return [Fault(DATE, name, impossible, reason, (launch - dates[0]).days / YEAR)]
    if dates[-1] > today:
        reason = f"{dates[-1]} lies in the future"
        return [Fault(DATE, name, WRONG, reason, (dates[-1] - today).days / YEAR)]
    ordinals = np.array([day.toordinal() for day in dates])
    apart = np.abs(ordinals - np.median(ordinals))
    limit = FAR_YEARS * YEAR + FAR_MADS * np.median(apart)
    if len(dates) > 2 and apart.max() > limit:
        far = dates[int(apart.argmax())]
        reason = f"{far} lies {apart.max() / YEAR:.0f} years from the middle of its series"
        return [Fault(DATE, name, LOOK, reason, float(apart.max() / YEAR))]
    return []
