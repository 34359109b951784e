"""Random choices about frames: which are drawn, how their dates move, which the student sees.

All of them follow from the generator that is handed in; see ``data.seeded.generator``.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from data.stream.settings import AugmentSettings
from data.tiles.tile import day_index


@dataclass(frozen=True)
class ViewFrames:
    """The drawn frames of a sample as one view shows them; a sensor without frames is absent."""

    days: dict[str, np.ndarray]  # modality -> T int64 in 0..364, day index with jitter
    seen: dict[str, np.ndarray]  # modality -> T bool, frames that the student sees in this view


def draw_frames(rng: np.random.Generator, available: Sequence[int], count: int) -> np.ndarray:
    """Choose ``count`` of the ``available`` frame indices without replacement, in time order.

    All of them if there are fewer.
    """
    frames = np.asarray(available, dtype=np.int64)
    if len(frames) <= count:
        return np.sort(frames)
    return np.sort(rng.choice(frames, count, replace=False))


def jitter_days(rng: np.random.Generator, dates: Sequence[str], most: int) -> np.ndarray:
    """``day_index`` of ISO dates, each moved by up to ``most`` days either way.

    Returns:
        (T,) int64 in 0..364.
    """
    moves = rng.integers(-most, most, size=len(dates), endpoint=True)
    days = np.empty(len(dates), dtype=np.int64)
    for frame, (date, move) in enumerate(zip(dates, moves)):
        days[frame] = day_index(date, int(move))
    return days


def draw_seen(
    rng: np.random.Generator, frames: Mapping[str, int], settings: AugmentSettings
) -> dict[str, np.ndarray]:
    """Choose which frames of which sensors the student sees in one view.

    Each sensor is absent with one probability, and each frame of a present one with another. At
    least one sensor stays, and at least one frame of it.

    Args:
        rng: of this view alone.
        frames: modality -> number of drawn frames, at least 1.
        settings: both probabilities.

    Returns:
        modality -> (T,) bool.
    """
    stays = _some(rng, len(frames), settings.absent_sensors)
    seen = {}
    for (modality, count), sensor_stays in zip(frames.items(), stays):
        seen[modality] = _some(rng, count, settings.absent_frames) & sensor_stays
    return seen


def _some(rng: np.random.Generator, count: int, absent: float) -> np.ndarray:
    """Leave each of ``count`` things out with the probability ``absent``, but never all: (count,)
    bool."""
    stays = rng.random(count) >= absent
    if count > 0 and not stays.any():
        stays[rng.integers(count)] = True
    return stays
