"""One sample -> its record, with its pixels measured: every member is read, checked and decoded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import numpy as np
from torch import Tensor

from data.audit.measure.fault import LOOK, WRONG, Fault
from data.audit.measure.fingerprint import content_hash, picture_hash, text_hash
from data.audit.measure.label_alignment import (
    Features,
    find_misfit,
    image_features,
    series_features,
    shows_details,
)
from data.audit.measure.masked_image import MaskedImage, enlarge
from data.audit.measure.pixels import LABEL_VALUES, Pixels
from data.audit.measure.profile import ProfileBuilder
from data.audit.measure.record import Failure, Record
from data.audit.measure.registration import LEAST_CELLS, register
from data.audit.measure.shared_shift import Pool
from data.audit.measure.sources import ACCURACY_MARK, source_name
from data.audit.rules.tile_rules import date_faults, pixel_faults
from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.files import hr_field, hr_levels
from data.shards.stacks import by_pixel
from data.stream.decode import decode
from data.tiles.modalities import HR_PIXELS, MODALITIES, REFLECTANCE
from data.tiles.tile import DAYS, LABEL_PIXELS, UNLABELLED, day_index

FRAMES = 32  # of a series of 10 m decoded at a time: bounds the memory of long ones
VISIBLE = slice(0, 3)  # bands B02 to B04 of Sentinel-2
DARK = 50  # of a series, added before the logarithm: below, it is noise
MISPLACED = "displaced"
LEAST_SEEN = 0.5  # share of valid pixels under the labels, to judge where these lie
# What decoders of damaged bytes raise: our own checks, torchvision's images, zstd and numpy, an
# index without a field.
DECODING_ERRORS = (ValueError, RuntimeError, OSError, KeyError, IndexError, TypeError)


def read_sample(dataset: ShardDataset, sample: int, shard: str, pixels: Pixels) -> Record:
    """Read a sample. Whatever is wrong becomes a failure of its record.

    Args:
        dataset: the dataset to audit.
        sample: number of the sample.
        shard: name of its shard.
        pixels: measurements to which the sample's valid pixels are added if nothing is wrong.
    """
    record = Record(sample, shard)
    source = ""
    with failing(record, "index"):
        describe(dataset, sample, record)
    for member in record.sizes:
        with failing(record, member):
            content = dataset.read_member(sample, member)
            if member == "meta":
                meta = json.loads(content)
                source = meta["attribution"]
                record.source = source_name(source, meta["source"])
                record.files_hash = text_hash(meta["source"])
                record.has_uncertain_dates = ACCURACY_MARK in meta["source"]
    if record.failures:
        return record
    reading = Reading(dataset, sample, record)
    with failing(record, "labels"):
        reading.labels()
    for name in record.dates:
        with failing(record, name):
            if name == "hr":
                reading.high_resolution()
            else:
                reading.series(name)
    if not record.failures:
        pixels.merge(reading.pixels)
        pool = pixels.pools.setdefault(source, Pool())
        compare(record, reading.greys, pool)
        record.faults = reading.faults(date.today())
    return record


@contextmanager
def failing(record: Record, member: str) -> Iterator[None]:
    """Turn what decoders raise into a failure of the record; let any other error, a bug, pass."""
    try:
        yield
    except DECODING_ERRORS as error:
        reason = str(error)
        if not isinstance(error, InputError):
            reason = f"{type(error).__name__}: {error}"
        one_line = " ".join(reason.split())
        record.failures.append(Failure(record.shard, record.key, member, one_line))


def describe(dataset: ShardDataset, sample: int, record: Record) -> None:
    """Copy what the index says into the record. Wrong dates are left out.

    Raises:
        ValueError: a date is not one of the calendar.
        InputError: the dates are not written as YYYY-MM-DD or do not ascend.
    """
    entry = dataset.entry(sample)
    record.key = entry.key
    record.region = dataset.region(sample)
    record.cells = entry.cells
    if entry.place is not None:
        record.lon, record.lat = entry.place
    record.usable = {name: len(frames) for name, frames in entry.usable.items()}
    record.sizes = {name: member.size for name, member in entry.members.items()}
    record.content_hash = content_hash(entry.members)
    for name, days in entry.dates.items():
        normal = [date.fromisoformat(day).isoformat() for day in days]
        if normal != sorted(days):
            raise InputError(
                f"dates of {name}: expected YYYY-MM-DD in ascending order, found {days}"
            )
    record.dates = entry.dates


@dataclass
class Reading:
    """A sample while it is decoded."""

    dataset: ShardDataset
    sample: int
    record: Record
    pixels: Pixels = field(default_factory=Pixels)  # of this sample alone
    greys: dict[str, MaskedImage] = field(default_factory=dict)  # "hr" and "ms", where present
    label_image: np.ndarray | None = None  # 8N 8N
    features: Features | None = None  # of the image on which the labels should lie

    def faults(self, today: date) -> list[Fault]:
        """What is wrong with the sample itself, once everything is read."""
        record = self.record
        faults: list[Fault] = []
        for name, profile in record.profiles.items():
            faults += pixel_faults(name, profile)
            days = record.dates[name]
            # A series has the dates of its file; only that of a single image can be a stand-in.
            is_uncertain = record.has_uncertain_dates and len(days) == 1
            faults += date_faults(name, days, is_uncertain=is_uncertain, today=today)
        if self.label_image is None or self.features is None:
            return faults
        if self.features.valid.mean() < LEAST_SEEN:
            return faults
        misfit = find_misfit(self.label_image, self.features)
        if misfit is not None:
            reason = (
                f"{misfit.words}: there they explain {100 * misfit.best:.0f} % of the image's"
                f" variance, as stored {100 * misfit.stored:.0f} %"
            )
            verdict = LOOK
            if shows_details(self.label_image, self.features):
                verdict = WRONG
            strength = misfit.best - misfit.stored
            faults.append(Fault(MISPLACED, "labels", verdict, reason, strength))
        return faults

    def labels(self) -> None:
        """Count the classes.

        Raises:
            InputError: the labels have a wrong size or an index without a class.
        """
        if "labels" not in self.record.sizes:
            return
        labels = present("labels", decode(self.dataset, self.sample, {}).labels)  # 8N 8N
        side = LABEL_PIXELS * self.record.cells
        check_shape("labels", labels.shape, (side, side))
        counts = np.bincount(labels.ravel(), minlength=LABEL_VALUES)
        classes = [index for index in np.flatnonzero(counts).tolist() if index != UNLABELLED]
        unknown = [index for index in classes if index >= len(self.dataset.classes)]
        if unknown:
            raise InputError(
                f"labels: indices {unknown} lie outside the {len(self.dataset.classes)} classes"
            )
        self.record.classes = classes
        self.label_image = labels
        self.pixels.classes += counts

    def high_resolution(self) -> None:
        """Measure the valid high-resolution pixels, keep the image in grey, check its reductions.

        Raises:
            InputError: the image, its mask or a reduction has a wrong size.
        """
        cells = self.record.cells
        frames = {"hr": np.arange(1)}
        for level in range(1, hr_levels(self.record.sizes)):
            field_name = hr_field(level)
            reduced = decode(self.dataset, self.sample, frames, level=level, labels=False)
            side = HR_PIXELS * cells >> level
            check_shape(field_name, present(field_name, reduced.hr).shape, (3, side, side))
        decoded = decode(self.dataset, self.sample, frames, labels=False)
        image = present("hr", decoded.hr)  # 3 32N 32N
        valid = decoded.valid["hr"][0].numpy()  # N N
        side = HR_PIXELS * cells
        check_shape("hr", (*image.shape, *valid.shape), (3, side, side, cells, cells))
        self.record.invalid["hr"] = [int((~valid).sum())]
        fine_valid = enlarge(valid, (side, side))  # 32N 32N
        self.pixels.add("hr", image[:, fine_valid])
        profile = ProfileBuilder("hr", frames=1)
        profile.add(image[None], fine_valid[None])
        self._keep_profile(profile)
        if self.label_image is not None:
            self.features = image_features(image, valid)
        self.greys["hr"] = MaskedImage(image.mean(0, dtype=np.float32), valid)

    def series(self, name: str) -> None:
        """Measure the valid pixels of all frames, block by block.

        Of Sentinel-2 the brightness of one frame is kept: the one with most valid cells; among
        equals the one nearest to the season of the high-resolution image.

        Raises:
            InputError: an array has a wrong size, or a valid pixel is not finite.
        """
        days = self.record.dates[name]
        cells = self.record.cells
        invalid: list[int] = []
        best = (-1, 0)
        profile = ProfileBuilder(name, frames=len(days))
        mean = MeanImage()
        at_once = max(1, FRAMES // MODALITIES[name].pixels ** 2)
        for first in range(0, len(days), at_once):
            frames = np.arange(first, min(first + at_once, len(days)))
            decoded = decode(self.dataset, self.sample, {name: frames}, labels=False)
            series = decoded.series[name].numpy()  # T C pN pN
            valid = decoded.valid[name].numpy()  # T N N
            side = MODALITIES[name].pixels * cells
            check_shape(name, (*series.shape[2:], *valid.shape[1:]), (side, side, cells, cells))
            pixel_valid = by_pixel(valid, MODALITIES[name].pixels)  # T pN pN
            pixels = series.transpose(1, 0, 2, 3)[:, pixel_valid]  # C n
            if not np.isfinite(pixels).all():
                raise InputError(f"{name}: values that are not finite in pixels marked valid")
            self.pixels.add(name, pixels)
            profile.add(series, pixel_valid)
            if self._needs_features(name):
                mean.add(np.log(np.maximum(series, 0) + DARK), pixel_valid)
            invalid += (~valid).sum((1, 2)).tolist()
            if name != "ms":
                continue
            for frame, mask, day in zip(series, valid, days[first:]):
                rank = (int(mask.sum()), -self._days_from_season(day))
                if rank > best:
                    best = rank
                    self.greys[name] = MaskedImage(frame[VISIBLE].mean(0), mask)
        self.record.invalid[name] = invalid
        self._keep_profile(profile)
        if self._needs_features(name):
            self.features = series_features(mean.image(), mean.number > 0)

    def _needs_features(self, name: str) -> bool:
        """Whether labels are compared with this series: the first optical one, without an image."""
        sensor = MODALITIES[name]
        is_optical = sensor.unit == REFLECTANCE and sensor.pixels == 1
        return self.label_image is not None and self.features is None and is_optical

    def _keep_profile(self, builder: ProfileBuilder) -> None:
        """Put the numbers of a sensor into the record."""
        days = self.record.dates[builder.modality]
        ordinals = [date.fromisoformat(day).toordinal() for day in days]
        self.record.profiles[builder.modality] = builder.profile(ordinals)

    def _days_from_season(self, day: str) -> int:
        """Days of the year between a date and the high-resolution image (else 1 January)."""
        season = 0
        if "hr" in self.record.dates:
            season = day_index(self.record.dates["hr"][0])
        apart = abs(day_index(day) - season)
        return min(apart, DAYS - apart)


@dataclass
class MeanImage:
    """The mean over time of a series' valid pixels."""

    total: np.ndarray | float = 0.0  # C N N
    number: np.ndarray = field(default_factory=lambda: np.zeros((), np.int64))  # N N

    def add(self, series: np.ndarray, valid: np.ndarray) -> None:
        """Take in frames T C N N with their masks T N N."""
        self.total = self.total + np.where(valid[:, None], series, 0).sum(0, dtype=np.float64)
        self.number = self.number + valid.sum(0)

    def image(self) -> np.ndarray:
        """The mean, 0 where there is none: C N N."""
        return np.asarray(self.total / np.maximum(self.number, 1))


def present(name: str, pixels: Tensor | None) -> np.ndarray:
    """Decoded pixels as an array. Raise InputError where the decoder returned none."""
    if pixels is None:
        raise InputError(f"{name}: expected pixels, found none")
    return pixels.numpy()


def check_shape(name: str, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    """Raise InputError for a shape other than the one that follows from the number of cells."""
    if tuple(shape) != expected:
        raise InputError(f"{name}: expected the sides {expected}, found {tuple(shape)}")


def compare(record: Record, greys: dict[str, MaskedImage], pool: Pool) -> None:
    """Hash the pictures and, where both images exist, find the shift between them.

    A tile too small for a shift of its own joins the pool of its source.
    """
    for name, grey in greys.items():
        hashed = picture_hash(grey.image, grey.valid)
        if hashed is not None:
            record.picture_hashes[name] = hashed
    if "hr" not in greys or "ms" not in greys:
        return
    record.registration = register(greys["hr"], greys["ms"])
    if record.cells < LEAST_CELLS:
        pool.add(greys["hr"], greys["ms"])
