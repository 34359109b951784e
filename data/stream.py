"""The endless stream of batches. A step's content follows from (seed, step, dataset) alone: never from the number of
ranks, worker processes, or where the run was started.
"""

from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from data.augment import draw_frames, jitter_days, photometric
from data.collate import empty_batch, fill
from data.decode import decode
from data.errors import InputError
from data.modalities import MODALITIES
from data.order import Order, generator
from data.sample import Batch
from data.settings import DataSettings
from data.shards import ShardDataset
from data.views import draw_views

SUBSTITUTES = 32  # tries to replace one bad sample; more bad ones in a row mean that the dataset is lost


def open_stream(dataset: ShardDataset, settings: DataSettings, seed: int, batch_size: int, rank: int, world_size: int,
                start_step: int, stop_step: int) -> "Stream":
    """Batches of steps start_step .. stop_step - 1 for one rank: its slice of ``batch_size`` (global) samples.

    Raises InputError for settings that cannot work, and while iterating when more samples are bad than
    ``settings.max_bad_samples`` allows."""
    problem = settings.views.problem() or _problem(settings)
    if problem:
        raise InputError(problem)
    if not 0 <= start_step <= stop_step:
        raise InputError(f"stream: expected 0 <= start step <= stop step, found {start_step} and {stop_step}")
    order = Order(seed, len(dataset), dataset.fingerprint, batch_size)
    return Stream(Steps(dataset, settings, seed, order, rank, world_size), start_step, stop_step)


def _problem(settings: DataSettings) -> str | None:
    """One line saying what of the frames and workers is impossible, or None."""
    for name, count in settings.frames.items():
        if name not in MODALITIES:
            return f"data.frames: {name!r} is no known modality, expected some of {sorted(MODALITIES)}"
        if count < 1 or (name == "hr" and count != 1):
            return f"data.frames.{name}: expected {'1' if name == 'hr' else 'at least 1'}, found {count}"
    if settings.workers < 0 or (settings.workers and settings.prefetch < 1):
        return (f"data: expected workers >= 0 and prefetch >= 1, found workers {settings.workers}, "
                f"prefetch {settings.prefetch}")
    return None


class Stream:
    """Iterable of ``Batch``; each ``iter`` starts at the first step again. ``len`` is the number of steps."""

    def __init__(self, steps: "Steps", start: int, stop: int):
        self.steps, self.start, self.stop = steps, start, stop

    def __len__(self) -> int:
        return self.stop - self.start

    def __iter__(self) -> Iterator[Batch]:
        """Yield batches in step order; raises InputError when the bad samples exceed what the settings allow."""
        settings, bad = self.steps.settings, set()
        loader = DataLoader(
            self.steps, sampler=range(self.start, self.stop), batch_size=None, collate_fn=_same,
            num_workers=settings.workers, prefetch_factor=settings.prefetch if settings.workers else None,
            generator=torch.Generator(),  # its own, so that the global generator is left alone
        )
        for result in loader:
            if isinstance(result, InputError):  # travels as a value: raised in a worker it would drag a traceback along
                raise result
            for record in result.quarantined:
                bad.add(record["key"])
                if len(bad) > settings.max_bad_samples:
                    raise InputError(record["reason"])
            yield result


class Steps(Dataset):
    """Map-style dataset of whole steps: step number -> this rank's Batch, or the InputError that prevents it."""

    def __init__(self, dataset: ShardDataset, settings: DataSettings, seed: int, order: Order, rank: int, world: int):
        self.dataset, self.settings, self.seed, self.order = dataset, settings, seed, order
        self.rank, self.world = rank, world
        self.first, self.size = order.share(rank, world)

    def __getitem__(self, step: int) -> Batch | InputError:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # as in a worker: sums split over threads would differ in the last bit
        try:
            batch = empty_batch(step, self.size, self.settings)
            for slot, (sample, use) in enumerate(self.order.slice(step, self.rank, self.world)):
                self._fill(batch, slot, sample, use)
            return batch
        except InputError as error:
            return error
        finally:
            torch.set_num_threads(threads)

    def _fill(self, batch: Batch, slot: int, sample: int, use: int) -> None:
        """Put a sample into its slot, or a substitute that follows from (seed, step, global slot)."""
        rng, bad = generator(self.seed, "substitute", batch.step, self.first + slot), []
        for _ in range(SUBSTITUTES):
            try:
                cut_sample(self.dataset, self.settings, self.seed, batch, slot, sample, use)
                break
            except InputError as error:
                bad.append((sample, error))
                sample = int(rng.integers(len(self.dataset)))
        else:
            raise bad[0][1]
        batch.quarantined += [{"key": self._key(index), "reason": str(error), "step": batch.step,
                               "substitute": batch.keys[slot]} for index, error in bad]

    def _key(self, sample: int) -> str:
        """Key of a sample; its number where the index itself cannot be read."""
        try:
            return self.dataset.entry(sample)["key"]
        except InputError:
            return f"sample {sample}"


def draw_series(entry: dict, settings: DataSettings, seed: int, use: int) -> dict[str, np.ndarray]:
    """Frames of a sample in its ``use``: modality -> indices of the stored frames, the same for all views."""
    return {name: draw_frames(generator(seed, entry["key"], use, "frames", name), entry["usable"].get(name, []), count)
            for name, count in settings.frames.items()}


def cut_sample(dataset: ShardDataset, settings: DataSettings, seed: int, batch: Batch, slot: int, sample: int,
               use: int) -> None:
    """Draw, decode and cut one sample into its slot of an empty batch; its random choices follow from
    (seed, key, use, purpose, view). Raises InputError for unreadable data, before anything is written."""
    entry = dataset.entry(sample)
    rng = partial(generator, seed, entry["key"], use)  # + the purpose and view
    frames = draw_series(entry, settings, seed, use)
    days = {name: jitter_days(rng("days", name), [entry["dates"][name][i] for i in chosen],
                              settings.augment.date_jitter_days) for name, chosen in frames.items() if len(chosen)}
    decoded = decode(dataset, sample, frames)
    views = draw_views(rng("views"), decoded.cells, settings.views)
    fill(batch, slot, entry["key"], dataset.region(sample), days, decoded, views,
         lambda image, mask, name, v: photometric(rng("colour", name, v), image, mask, settings.augment, name, v))


def _same(batch: Batch | InputError) -> Batch | InputError:
    """Batches come collated already."""
    return batch
