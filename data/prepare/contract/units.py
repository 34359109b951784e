"""Whether the numbers of a source can be in the unit that its tile takes them for.

A file seldom says its unit, and wrong units are numbers like any others. So the frames of a source
are held against what the Earth shows: a frame that no place can give is dropped, a source that is
mostly of such frames is refused, and one that is merely unusual is told. Statistics are percentiles
over valid pixels, which a few bright roofs, ships or dead pixels do not move.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from data.errors import InputError
from data.prepare.contract.source import Frames, Reader, main_file
from data.tiles.modalities import BYTE, DECIBEL, MODALITIES, REFLECTANCE

DOUBT = "doubtful numbers: "  # begins a note of numbers that are possible, but unusual

MOST_PIXELS = 1024  # of a frame, evenly spread: enough for a percentile
LEAST_PIXELS = 16  # fewer say nothing of a frame

# dB. The brightest tiles, city centres, have a median of about 0 in VV; the noise of the instrument
# is near -25 to -30, and calm water lies a little below it.
BRIGHTEST_BACKSCATTER = 15.0
UNUSUALLY_BRIGHT = 8.0
UNUSUALLY_DARK = -40.0
DARKEST_BACKSCATTER = -60.0
# Speckle alone spreads the numbers of a surface by more than 10 dB, so that no tile is without
# negative ones. Linear power, amplitude and digital numbers are never negative.
LEAST_POWER = 2.0  # the median of linear power is below
LEAST_DIGITAL = 40.0  # that of digital numbers above, dB without their sign between
EXACT_ZEROS = 0.01  # share of pixels; no measurement is 0.0 dB in every band
TIMES_HUNDRED = -500.0  # dB x 100 lie below, dB x 10 above

# Reflectance x 1e4. Sand and dense leaves reach 0.6 in their brightest band. Snow is about 1.0, and
# clouds under a low sun 2.0, but both are white: bright in all short waves.
BRIGHTEST_SURFACE = 16_000
UNUSUAL_SURFACE = 12_000
BRIGHTEST_CLOUD = 28_000
WHITE = 0.6  # of the brightest band, which no short wave of a cloud is below
PERCENT = 150  # no tile on land is below 1.5 % in all bands; calm water can be
THOUSANDTHS = 600  # hardly any tile on land is below 6 % in all bands
UNIT_INTERVAL = 2  # reflectance from 0 to 1 that is taken for reflectance x 1e4, rounded
# Landsat Collection 2 stores reflectance 0 as 7273.
LANDSAT_ZERO = 7000
# Sentinel-2 since baseline 04.00 stores reflectance 0 as 1000. Then no band has a pixel below, up
# to noise, and the dark bands come near it: shadow, water and vegetation are somewhere in a tile. A
# bright desert has no pixel below in any band either, but then just one or two come near.
OFFSET = 1000
OFFSET_NOISE = 50
NEAR_OFFSET = 1700
BANDS_NEAR_OFFSET = 3
LEAST_CONTRAST = 1.1  # between the medians of bands; without it the frame is no view of the ground
PIXELS_OF_OFFSET = 100  # fewer may all be haze
FRAMES_OF_JUMP = 4  # on both sides of a day since which numbers are raised
HAZY = 0.2  # share of frames that look otherwise by haze or snow

# Bytes.
SATURATED = 255
UNUSUALLY_DIM = 25
BLACK = 0.1  # share of pixels; deep shadow is not black in every band

MOSTLY = 0.5  # share of a source's frames


@dataclass(frozen=True)
class _Statistics:
    """Of one frame: percentiles of its valid pixels."""

    bands: tuple[str, ...]
    low: np.ndarray  # (C,) the 1st percentile
    middle: np.ndarray  # (C,) the median
    high: np.ndarray  # (C,) the 99th
    lowest: float  # the 5th percentile of all bands together
    zeros: float  # share of the pixels that are 0 in every band
    pixels: int

    @property
    def is_flat(self) -> bool:
        """Whether every band is one number: no picture, so it says little of its unit."""
        return not (self.high > self.low).any()

    def __str__(self) -> str:
        medians = [f"{name} {value:.5g}" for name, value in zip(self.bands, self.middle)]
        return f"medians {', '.join(medians)}"


@dataclass(frozen=True)
class _Finding:
    """What is wrong with a frame's numbers."""

    is_impossible: bool
    likely: str  # what the numbers likely are
    remedy: str  # the keys of the manifest that say so


def check_units(frames: Frames, reader: Reader) -> tuple[Frames, list[str]]:
    """Hold the numbers of a source against its sensor's unit.

    Args:
        frames: what ``reader`` has read, on the tile's grid.
        reader: the source; its keys are named if it has any.

    Returns:
        The frames without those whose numbers are impossible, and a line for what was dropped or is
        unusual.

    Raises:
        InputError: the numbers of at least half of the frames are impossible.
    """
    sensor = MODALITIES[frames.modality]
    judge = JUDGES.get(sensor.unit)
    statistics = _statistics(frames)
    units = getattr(reader, "units", "db")
    if judge is None:
        return frames, []
    if not statistics and units != "db":
        return frames, [
            f"{main_file(reader).name}: {frames.modality} has no positive number; if its numbers "
            f"are dB already, leave 'units': {units!r} out"
        ]
    findings = {i: judge(numbers, units) for i, numbers in statistics.items()}
    impossible = [i for i, finding in findings.items() if finding and finding.is_impossible]
    unusual = [i for i, finding in findings.items() if finding and not finding.is_impossible]
    notes = []
    if impossible:
        i = impossible[0]
        line = _line(frames, i, statistics[i], finding=findings[i], reader=reader)
        if len(impossible) >= MOSTLY * len(statistics):
            raise InputError(f"{main_file(reader)}: {line}")
        notes.append(f"{line}; {len(impossible)} of {len(frames.dates)} frames dropped")
    if unusual and len(unusual) >= MOSTLY * len(statistics):
        i = unusual[0]
        line = _line(frames, i, statistics[i], finding=findings[i], reader=reader)
        notes.append(f"{DOUBT}{main_file(reader).name}: {line}")
    good = [i for i in range(len(frames.dates)) if i not in impossible]
    return frames.keep(good), notes


def offset_doubt(frames: Frames) -> str | None:
    """A line if the reflectances of a series look as if 1000 had been added, else None.

    It is said of most frames, or of all since a day: archives that mix processing baselines. One
    hazy frame looks the same, so this is told and not refused, and all frames of the tile are asked
    together.
    """
    if MODALITIES[frames.modality].unit != REFLECTANCE:
        return None
    statistics = _statistics(frames)
    in_time_order = sorted(statistics, key=lambda i: frames.dates[i])
    first = _first_raised([_is_raised(statistics[i]) for i in in_time_order])
    if first is None:
        return None
    raised = [i for i in in_time_order[first:] if _is_raised(statistics[i])]
    if sum(statistics[i].pixels for i in raised) < PIXELS_OF_OFFSET:
        return None
    i = raised[0]
    return (
        f"{DOUBT}{frames.modality}: no band has a pixel below {OFFSET - OFFSET_NOISE} in "
        f"{len(raised)} of {len(frames.dates)} frames, the first of {frames.dates[i]} "
        f"({statistics[i]}); if {OFFSET} was added to reflectance x 10,000, as Sentinel-2 does "
        "since baseline 04.00, give these frames 'scale': 0.0001, 'offset': -0.1"
    )


def _first_raised(raised: list[bool]) -> int | None:
    """Where in a series the frames begin to look raised: at 0 if most do, else at a jump."""
    if not raised:
        return None
    if np.mean(raised) >= MOSTLY:
        return 0
    for start in range(FRAMES_OF_JUMP, len(raised) - FRAMES_OF_JUMP + 1):
        is_before = np.mean(raised[:start]) <= HAZY
        if is_before and raised[start] and np.mean(raised[start:]) >= 1 - HAZY:
            return start
    return None


def _line(
    frames: Frames,
    position: int,
    numbers: _Statistics,
    *,
    finding: _Finding | None,
    reader: Reader,
) -> str:
    """What is wrong with a frame, and what to do."""
    assert finding is not None
    verb = "hardly have"
    if finding.is_impossible:
        verb = "cannot have"
    unit = MODALITIES[frames.modality].unit
    remedy = "correct the file"
    if hasattr(reader, "scale"):
        remedy = finding.remedy
    return (
        f"the numbers of {frames.modality} of {frames.dates[position]} {verb} the unit {unit!r} "
        f"({numbers}); likely {finding.likely}: {remedy}"
    )


def _statistics(frames: Frames) -> dict[int, _Statistics]:
    """The statistics of each frame that has enough valid pixels, by its position."""
    step = max(1, int(np.ceil(frames.valid.shape[-1] / np.sqrt(MOST_PIXELS))))
    bands = MODALITIES[frames.modality].bands
    statistics = {}
    for i, valid in enumerate(frames.valid):
        chosen = valid[::step, ::step]
        pixels = frames.array[i][:, ::step, ::step][:, chosen]  # C N
        count = pixels.shape[1]
        if count < LEAST_PIXELS:
            continue
        low, middle, high = _quantiles(pixels, (0.01, 0.5, 0.99))  # C each
        lowest = float(_quantiles(pixels.reshape(1, -1), (0.05,))[0, 0])
        zeros = float((pixels == 0).all(axis=0).mean())
        statistics[i] = _Statistics(
            bands=bands,
            low=low,
            middle=middle,
            high=high,
            lowest=lowest,
            zeros=zeros,
            pixels=count,
        )
    return statistics


def _quantiles(numbers: np.ndarray, shares: tuple[float, ...]) -> np.ndarray:
    """The numbers (C, N) that are at these shares of the sorted ones, (shares, C).

    numpy's own quantiles also interpolate, which takes ten times as long.
    """
    ranks = [round(share * (numbers.shape[1] - 1)) for share in shares]
    return np.sort(numbers, axis=1)[:, ranks].T


def _judge_backscatter(numbers: _Statistics, units: str) -> _Finding | None:
    """Judge decibels, into which ``units`` were converted."""
    brightest = numbers.middle.max()
    darkest = numbers.middle.min()
    if numbers.zeros > EXACT_ZEROS:
        return _EMPTY
    if units != "db" and brightest > BRIGHTEST_BACKSCATTER:
        return _Finding(
            True,
            "numbers that are not calibrated",
            "calibrate them to sigma or gamma nought, or say what they are with 'units' and "
            "'scale'",
        )
    if numbers.lowest >= 0 or brightest >= LEAST_DIGITAL:
        return _positive(brightest)
    if brightest > BRIGHTEST_BACKSCATTER:
        return _Finding(True, "another unit or calibration", "check 'units' and 'scale'")
    if darkest < DARKEST_BACKSCATTER:
        factor = 10
        if darkest < TIMES_HUNDRED:
            factor = 100
        return _Finding(
            True,
            f"dB x {factor}",
            f"give 'scale': {1 / factor:g} (with 'units': 'db')",
        )
    if brightest > UNUSUALLY_BRIGHT or darkest < UNUSUALLY_DARK:
        return _Finding(False, "another unit or calibration", "check 'units' and 'scale'")
    return None


def _positive(brightest: float) -> _Finding:
    """What numbers are that are never negative."""
    if brightest < LEAST_POWER:
        return _Finding(
            True,
            "linear power or amplitude",
            "give 'units': 'power' or 'amplitude' ('scale' if they are scaled)",
        )
    if brightest < LEAST_DIGITAL:
        return _Finding(
            True,
            "dB that have lost their minus sign",
            "correct the file, or say what they are with 'units' and 'scale'",
        )
    return _Finding(
        True,
        "digital numbers, which are not calibrated",
        "calibrate them to sigma or gamma nought, or say what they are with 'units' and 'scale'",
    )


def _judge_reflectance(numbers: _Statistics, units: str) -> _Finding | None:
    """Judge reflectance x 1e4; whether 1000 was added is for ``offset_doubt``."""
    brightest = numbers.middle.max()
    if numbers.high.max() <= UNIT_INTERVAL:
        return _Finding(True, "reflectance from 0 to 1", "give 'scale': 1")
    # Water is darkest in the long waves, which come last; land is brighter there.
    is_land = int(numbers.middle.argmax()) >= len(numbers.middle) / 2
    if numbers.high.max() <= PERCENT:
        return _Finding(is_land, "reflectance in percent", "give 'scale': 0.01")
    if numbers.high.max() <= THOUSANDTHS and is_land and not numbers.is_flat:
        return _Finding(False, "reflectance x 1000, or dark ground", "give 'scale': 0.001")
    is_impossible = bool(brightest > BRIGHTEST_SURFACE)
    if numbers.low.min() > LANDSAT_ZERO:
        return _Finding(
            is_impossible,
            "reflectance as Landsat Collection 2 stores it",
            "give 'scale': 0.0000275, 'offset': -0.2",
        )
    short_waves = numbers.middle[: (len(numbers.middle) + 1) // 2]
    is_cloud = short_waves.min() > WHITE * brightest and brightest < BRIGHTEST_CLOUD
    if brightest > UNUSUAL_SURFACE and not is_cloud:
        return _Finding(is_impossible, "reflectance x 100,000", "give 'scale': 0.00001")
    return None


def _is_raised(numbers: _Statistics) -> bool:
    """Whether a frame looks as if ``OFFSET`` had been added to all bands."""
    near = int((numbers.low < NEAR_OFFSET).sum())
    enough = min(BANDS_NEAR_OFFSET, len(numbers.low))
    above = numbers.low.min() >= OFFSET - OFFSET_NOISE
    has_spectrum = numbers.middle.max() > LEAST_CONTRAST * numbers.middle.min()
    return bool(above and near >= enough and has_spectrum and not numbers.is_flat)


def _judge_bytes(numbers: _Statistics, units: str) -> _Finding | None:
    """Judge a picture of 8 bits."""
    if numbers.high.max() == 0:
        return _EMPTY
    if numbers.high.max() <= 1 and not numbers.is_flat:
        return _Finding(True, "numbers from 0 to 1", "give 'scale': 255")
    if numbers.zeros > BLACK:
        return _Finding(False, "black where nothing was observed", "give 'nodata': 0")
    if numbers.middle.min() >= SATURATED:
        return _Finding(
            True,
            "numbers of more than 8 bits that were cut off, or white where nothing was observed",
            "give 'scale' (11 bits: 0.125, 16 bits: 0.0039), or 'nodata': 255",
        )
    if numbers.high.max() < UNUSUALLY_DIM and not numbers.is_flat:
        return _Finding(False, "too small a scale", "check 'scale'")
    return None


_EMPTY = _Finding(True, "0 for no observation", "give 'nodata': 0, and check 'units' and 'scale'")
JUDGES: dict[str, Callable[[_Statistics, str], _Finding | None]] = {
    BYTE: _judge_bytes,
    DECIBEL: _judge_backscatter,
    REFLECTANCE: _judge_reflectance,
}
