"""All random choices for one use of a sample: frames, dates, rectangles and colours."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from data.seeded import generator
from data.shards.files import hr_levels
from data.stream.augment import Colours, draw_colours, draw_frames, jitter_days
from data.stream.decode import Source
from data.stream.settings import DataSettings
from data.stream.views import View, draw_views, hr_level


@dataclass(frozen=True)
class SampleDraw:
    """The random choices for one use of a sample, and what the index says of the sample."""

    sample: int
    use: int
    key: str
    region: int  # index in the region table; NO_REGION without a place
    frames: dict[str, np.ndarray]  # modality -> indices of the stored frames, same for all views
    dates: dict[str, list[str]]  # modality -> ISO day of each drawn frame
    days: dict[str, np.ndarray]  # modality -> day index of each drawn frame, with jitter
    views: dict[str, list[View]]  # view size -> rectangles
    colours: dict[str, list[Colours]]  # view size -> changes of the high-resolution views
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
    days: dict[str, np.ndarray] = {}
    for modality, count in settings.frames.items():
        usable = entry.usable.get(modality, [])
        frames[modality] = draw_frames(random("frames", modality), usable, count)
        if len(frames[modality]) == 0:
            continue
        dates[modality] = [entry.dates[modality][frame] for frame in frames[modality]]
        days[modality] = jitter_days(
            random("days", modality), dates[modality], settings.augment.date_jitter_days
        )
    views = draw_views(random("views"), entry.cells, settings.views)
    colours: dict[str, list[Colours]] = {}
    for size, group in views.items():
        colours[size] = []
        for number in range(len(group)):
            rng = random("colour", size, number)
            colours[size].append(draw_colours(rng, settings.augment, size=size, number=number))
    return SampleDraw(
        sample=sample,
        use=use,
        key=entry.key,
        region=dataset.region(sample),
        frames=frames,
        dates=dates,
        days=days,
        views=views,
        colours=colours,
        level=hr_level(views, settings.views, hr_levels(entry.members)),
    )
