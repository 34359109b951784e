"""The endless stream of batches. A step's content follows from (seed, step, dataset) alone: never
from the number of ranks, worker processes, or where the run was started.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.errors import InputError
from data.seeded import generator
from data.shards.files import hr_levels
from data.stream.augment import Colours, draw_colours, draw_frames, jitter_days
from data.stream.collate import empty_batch, fill
from data.stream.decode import Raw, Source, read_raw, unpack
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import Batch
from data.stream.settings import DataSettings
from data.stream.views import View, draw_views, hr_level
from data.tiles.modalities import MODALITIES

SUBSTITUTES = (
    32  # tries to replace one bad sample; more bad ones in a row mean that the dataset is lost
)


def open_stream(
    dataset: Source,
    settings: DataSettings,
    seed: int,
    batch_size: int,
    rank: int,
    world_size: int,
    start_step: int,
    stop_step: int,
) -> "Stream":
    """Batches of steps start_step .. stop_step - 1 for one rank: its slice of ``batch_size``
    (global) samples.

    Raises InputError for settings that cannot work, and while iterating when more samples are bad
    than ``settings.max_bad_samples`` allows."""
    problem = settings.views.problem() or _problem(settings)
    if problem:
        raise InputError(problem)
    if not 0 <= start_step <= stop_step:
        raise InputError(
            f"stream: expected 0 <= start step <= stop step, found {start_step} and {stop_step}"
        )
    mixture = dataset if isinstance(dataset, Mixture) else Mixture([dataset])
    order = Order(seed, mixture.parts, batch_size)
    return Stream(Steps(mixture, settings, seed, order, rank, world_size), start_step, stop_step)


def _problem(settings: DataSettings) -> str | None:
    """One line saying what of the frames and workers is impossible, or None."""
    for name, count in settings.frames.items():
        if name not in MODALITIES:
            return (
                f"data.frames: {name!r} is no known modality, expected some of {sorted(MODALITIES)}"
            )
        if count < 1 or (name == "hr" and count != 1):
            return f"data.frames.{name}: expected {'1' if name == 'hr' else 'at least 1'}, found {count}"
    if (
        settings.workers < 0
        or settings.read_ahead < 0
        or (settings.workers and settings.prefetch < 1)
    ):
        return (
            f"data: expected workers >= 0, read_ahead >= 0 and prefetch >= 1, found workers {settings.workers}, "
            f"read_ahead {settings.read_ahead}, prefetch {settings.prefetch}"
        )
    return None


class Stream:
    """Iterable of ``Batch``; each ``iter`` starts at the first step again. ``len`` is the number of
    steps.

    In memory are at most ``workers * prefetch`` batches, and ``read_ahead`` samples' bytes a
    worker."""

    def __init__(self, steps: "Steps", start: int, stop: int):
        self.steps, self.start, self.stop = steps, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in step order; raises InputError, with the list, when the bad samples
        exceed what the settings allow."""
        settings, bad = self.steps.settings, {}
        loader = DataLoader(
            self.steps,
            sampler=range(self.start, self.stop),
            batch_size=None,
            collate_fn=_same,
            num_workers=settings.workers,
            prefetch_factor=settings.prefetch if settings.workers else None,
            generator=torch.Generator(),  # its own, so that the global generator is left alone
        )
        for result in loader:
            if isinstance(
                result, InputError
            ):  # travels as a value: raised in a worker it would drag a traceback along
                raise result
            for record in result.quarantined:
                bad[record["key"]] = record["reason"]
                if len(bad) > settings.max_bad_samples:
                    raise InputError(_too_many(bad, settings.max_bad_samples))
            yield result


def _too_many(bad: dict[str, str], most: int) -> str:
    """Why a run ends over its bad samples: each of them on a line."""
    if len(bad) == 1:
        return next(iter(bad.values()))
    lines = "".join(f"\n  {key}: {reason}" for key, reason in bad.items())
    return f"{len(bad)} samples are bad, data.max_bad_samples allows {most}:{lines}"


@dataclass
class Draw:
    """All random choices for one use of a sample, and what must be read for them."""

    sample: int
    frames: dict[
        str, np.ndarray
    ]  # modality -> indices of the stored frames, the same for all views
    days: dict[str, np.ndarray]  # modality -> day index of each drawn frame
    views: dict[str, list[View]]
    colours: dict[str, list[Colours]]
    level: int  # reduction of the high-resolution image that the views are cut from


Reading = Callable[[], tuple[Draw, Raw]]  # waits for the bytes of a sample; raises InputError


class Steps(Dataset):
    """Map-style dataset of whole steps: step number -> this rank's Batch, or the InputError that
    prevents it."""

    def __init__(
        self,
        dataset: Mixture,
        settings: DataSettings,
        seed: int,
        order: Order,
        rank: int,
        world: int,
    ):
        self.dataset, self.settings, self.seed, self.order = dataset, settings, seed, order
        self.rank, self.world = rank, world
        self.first, self.size = order.share(rank, world)

    def __getitem__(self, step: int) -> Batch | InputError:
        threads, before = torch.get_num_threads(), self.dataset.counts
        torch.set_num_threads(
            1
        )  # as in a worker: sums split over threads would differ in the last bit
        try:
            batch = empty_batch(step, self.size, self.settings)
            uses = self.order.slice(step, self.rank, self.world)
            for slot, reading in enumerate(self._readings(uses)):
                self._fill(batch, slot, *uses[slot], reading)
            batch.reads = dict(self.dataset.counts - before)
            return batch
        except InputError as error:
            return error
        finally:
            torch.set_num_threads(threads)

    def _readings(self, uses: list[tuple[int, int]]) -> Iterator[Reading]:
        """One reading a slot, in order, with at most ``read_ahead`` of them under way beyond the
        one handed out."""
        depth = self.settings.read_ahead
        if not depth:
            yield from (partial(self._read, *use) for use in uses)
            return
        with ThreadPoolExecutor(depth) as pool:
            queue = [pool.submit(self._read, *use) for use in uses[: depth + 1]]
            for slot in range(len(uses)):
                yield queue.pop(0).result
                if slot + depth + 1 < len(uses):
                    queue.append(pool.submit(self._read, *uses[slot + depth + 1]))

    def _read(self, sample: int, use: int) -> tuple[Draw, Raw]:
        """What a use of a sample draws, and its bytes."""
        chosen = draw(self.dataset, self.settings, self.seed, sample, use)
        return chosen, read_raw(self.dataset, sample, chosen.frames, chosen.level)

    def _fill(self, batch: Batch, slot: int, sample: int, use: int, reading: Reading) -> None:
        """Put a sample into its slot, or a substitute that follows from (seed, step, global slot)."""
        rng, bad = generator(self.seed, "substitute", batch.step, self.first + slot), []
        others = self.order.substitutes(sample)
        for _ in range(SUBSTITUTES):
            try:
                cut(self.dataset, batch, slot, *(self._read(sample, use) if bad else reading()))
                break
            except InputError as error:
                bad.append((sample, error))
                sample = others[int(rng.integers(len(others)))]
        else:
            raise bad[0][1]
        batch.quarantined += [
            {
                "key": self._key(index),
                "reason": str(error),
                "step": batch.step,
                "substitute": batch.keys[slot],
            }
            for index, error in bad
        ]

    def _key(self, sample: int) -> str:
        """Key of a sample; its number where the index itself cannot be read."""
        try:
            return self.dataset.entry(sample)["key"]
        except InputError:
            return f"sample {sample}"


def draw(dataset: Source, settings: DataSettings, seed: int, sample: int, use: int) -> Draw:
    """The random choices of a sample in its ``use``: they follow from (seed, key, use, purpose,
    view) alone.

    Raises InputError when the sample's index entry cannot be read."""
    entry = dataset.entry(sample)
    rng = partial(generator, seed, entry["key"], use)  # + the purpose and view
    frames = {
        name: draw_frames(rng("frames", name), entry["usable"].get(name, []), count)
        for name, count in settings.frames.items()
    }
    days = {
        name: jitter_days(
            rng("days", name),
            [entry["dates"][name][i] for i in chosen],
            settings.augment.date_jitter_days,
        )
        for name, chosen in frames.items()
        if len(chosen)
    }
    views = draw_views(rng("views"), entry["cells"], settings.views)
    level = hr_level(views, settings.views, hr_levels(entry["members"]))
    colours = {
        name: [
            draw_colours(rng("colour", name, v), settings.augment, name, v)
            for v in range(len(group))
        ]
        for name, group in views.items()
    }
    return Draw(sample, frames, days, views, colours, level)


def cut(dataset: Source, batch: Batch, slot: int, chosen: Draw, raw: Raw) -> None:
    """Decode the bytes of a sample and cut its views into a slot of an empty batch."""
    fill(
        batch,
        slot,
        raw.entry["key"],
        dataset.region(chosen.sample),
        chosen.days,
        unpack(raw),
        chosen.views,
        chosen.colours,
    )


def cut_sample(
    dataset: Source,
    settings: DataSettings,
    seed: int,
    batch: Batch,
    slot: int,
    sample: int,
    use: int,
) -> None:
    """Draw, read, decode and cut one sample into its slot of an empty batch. Raises InputError for
    unreadable data, before anything is written."""
    chosen = draw(dataset, settings, seed, sample, use)
    cut(dataset, batch, slot, chosen, read_raw(dataset, sample, chosen.frames, chosen.level))


def _same(batch: Batch | InputError) -> Batch | InputError:
    """Batches come collated already."""
    return batch
