"""Rules for the faults of real series.

They look at the pixels, never at file names, and only mask or drop frames.
"""

import numpy as np

from data.prepare.contract.source import Frames

SNOW_CLOUD_PERCENT = 35  # Sen2Cor counts a cloud probability above about 35 % as medium
# Reflectance x 1e4. Clear land is darker in B02; this catches the clouds that the masks miss.
BLUE_LIMIT = 1500
# dB. Over land VV is 4 to 10 dB above VH; a gap of about 0 means that both were mixed up.
MIN_POLARISATION_GAP = 2.0
SCRAMBLED = "scrambled polarisations"
MIN_VALID = 0.5  # share of a frame's pixels


def clear_sky(reflectance: np.ndarray, *, snow: np.ndarray, cloud: np.ndarray) -> np.ndarray:
    """Which pixels of an optical series are free of clouds and snow.

    Args:
        reflectance: (T, 10, H, W), reflectance x 1e4, B02 first.
        snow: probability (T, H, W) in percent.
        cloud: probability (T, H, W) in percent.

    Returns:
        (T, H, W) bool.
    """
    low_probability = (snow < SNOW_CLOUD_PERCENT) & (cloud < SNOW_CLOUD_PERCENT)
    return low_probability & (reflectance[:, 0] < BLUE_LIMIT)


def sar_to_db(power: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Linear power (T, 2, H, W) in dB.

    Returns:
        dB (T, 2, H, W), float32, and the mask (T, H, W): both polarisations finite and positive.
    """
    power = power.astype(np.float64)
    usable = np.isfinite(power) & (power > 0)
    decibel = 10 * np.log10(np.where(usable, power, 1.0))
    return decibel.astype(np.float32), usable.all(axis=1)


def scrambled_sar(frames: Frames) -> str | None:
    """One line when VV and VH were mixed up before we got the series, else None.

    The sign is a median gap near 0 dB over all valid pixels. None also for a series without a valid
    pixel.
    """
    gap = (frames.array[:, 0] - frames.array[:, 1])[frames.valid]
    if gap.size and np.median(gap) < MIN_POLARISATION_GAP:
        return (
            f"series of {len(frames.dates)} frames dropped: {SCRAMBLED} "
            f"(median VV - VH {np.median(gap):.2f} dB, expected above {MIN_POLARISATION_GAP})"
        )
    return None


def poor_frames(frames: Frames) -> list[int]:
    """The positions of the frames of which less than half is valid."""
    return np.flatnonzero(frames.valid.mean(axis=(1, 2)) < MIN_VALID).tolist()


def drop_bad_frames(frames: Frames) -> tuple[Frames, int]:
    """Drop the frames of which less than half is valid; returns the rest and how many went."""
    poor = set(poor_frames(frames))
    good = [i for i in range(len(frames.dates)) if i not in poor]
    return frames.keep(good), len(poor)


def one_frame_a_day(frames: Frames) -> tuple[Frames, int]:
    """Keep one frame a date, in time order; returns the frames and how many went.

    Of several frames of a day the one with the most valid pixels stays, the earliest of equals.
    """
    best: dict[str, int] = {}
    for i, day in enumerate(frames.dates):
        if day not in best or frames.valid[i].sum() > frames.valid[best[day]].sum():
            best[day] = i
    return frames.keep([best[day] for day in sorted(best)]), len(frames.dates) - len(best)
