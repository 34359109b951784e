"""All random choices for one use of a sample: frames, dates, rectangles, colours and levels."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from data.seeded import generator
from data.shards.files import hr_levels
from data.stream.augment import Colours, Levels, draw_colours, draw_levels
from data.stream.decode import Source
from data.stream.frames import ViewFrames, draw_frames, draw_seen, jitter_days
from data.stream.settings import AugmentSettings, DataSettings
from data.stream.views import View, draw_views, hr_level, steps_in_cell
from data.tiles.modalities import MODALITIES


@dataclass(frozen=True)
class SampleDraw:
    """The random choices for one use of a sample, and what the index says of the sample."""

    sample: int
    use: int
    key: str
    region: int  # index in the region table; NO_REGION without a place
    frames: dict[str, np.ndarray]  # modality -> indices of the stored frames, same for all views
    dates: dict[str, list[str]]  # modality -> ISO day of each drawn frame
    views: dict[str, list[View]]  # view size -> rectangles
    shown: dict[str, list[ViewFrames]]  # view size -> the drawn frames as its views show them
    colours: dict[str, list[Colours]]  # view size -> changes of the high-resolution views
    levels: dict[str, list[dict[str, Levels]]]  # view size -> changes of the other sensors
    level: int  # reduction of the high-resolution image that the views are cut from


def draw_sample(
    dataset: Source, settings: DataSettings, *, seed: int, sample: int, use: int
) -> SampleDraw:
    """Draw all choices of a sample in its ``use``.

    They follow from (seed, key, use, purpose, view) alone: each purpose has its own generator.

    Raises:
        InputError: the sample's index entry cannot be read.
    """
    entry = dataset.entry(sample)
    random = partial(generator, seed, entry.key, use)  # called with purpose and view
    frames: dict[str, np.ndarray] = {}
    dates: dict[str, list[str]] = {}
    for modality, count in settings.frames.items():
        usable = entry.usable.get(modality, [])
        frames[modality] = draw_frames(random("frames", modality), usable, count)
        if len(frames[modality]) > 0:
            dates[modality] = [entry.dates[modality][frame] for frame in frames[modality]]
    steps = steps_in_cell(dates)  # the sensors that this sample has
    views = draw_views(random("views"), entry.cells, settings.views, steps=steps)
    level = 0
    if "hr" in settings.frames:
        level = hr_level(views, settings.views, hr_levels(entry.members))
    shown: dict[str, list[ViewFrames]] = {}
    colours: dict[str, list[Colours]] = {}
    levels: dict[str, list[dict[str, Levels]]] = {}
    for size, group in views.items():
        shown[size] = []
        colours[size] = []
        levels[size] = []
        for number in range(len(group)):
            shown[size].append(
                _show_frames(random, dates, settings.augment, size=size, number=number)
            )
            rng = random("colour", size, number)
            colours[size].append(draw_colours(rng, settings.augment, size=size, number=number))
            levels[size].append(
                _draw_levels(random, list(dates), settings.augment, size=size, number=number)
            )
    return SampleDraw(
        sample=sample,
        use=use,
        key=entry.key,
        region=dataset.region(sample),
        frames=frames,
        dates=dates,
        views=views,
        shown=shown,
        colours=colours,
        levels=levels,
        level=level,
    )


def _show_frames(
    random: Callable[..., np.random.Generator],
    dates: dict[str, list[str]],
    settings: AugmentSettings,
    *,
    size: str,
    number: int,
) -> ViewFrames:
    """The drawn frames as one view shows them.

    Dates move by view: the same disturbed dates in both branches would identify the sample.
    """
    days = {}
    counts = {}
    for modality, of_sensor in dates.items():
        rng = random("days", modality, size, number)
        days[modality] = jitter_days(rng, of_sensor, settings.date_jitter_days)
        counts[modality] = len(of_sensor)
    return ViewFrames(days, draw_seen(random("seen", size, number), counts, settings))


def _draw_levels(
    random: Callable[..., np.random.Generator],
    modalities: Sequence[str],
    settings: AugmentSettings,
    *,
    size: str,
    number: int,
) -> dict[str, Levels]:
    """The levels of the sensors of one view; none for the image, which has colours."""
    levels: dict[str, Levels] = {}
    if settings.levels == 0:
        return levels
    for modality in modalities:
        if modality != "hr":
            rng = random("levels", modality, size, number)
            bands = len(MODALITIES[modality].bands)
            levels[modality] = draw_levels(rng, bands, settings.levels)
    return levels
