"""One sample -> its record, with its pixels counted: every member is read, checked and decoded."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date

import numpy as np

from data.audit.fingerprint import content, looks
from data.audit.pixels import Pixels
from data.audit.pool import Pool
from data.audit.record import Failure, Record
from data.audit.registration import LEAST_CELLS, register
from data.errors import InputError
from data.shards.dataset import ShardDataset
from data.shards.files import hr_field, hr_levels
from data.stream.decode import decode
from data.tiles.tile import DAYS, HR_PIXELS, LABEL_PIXELS, UNLABELLED, day_index

FRAMES = 32  # of a series decoded at a time: bounds the memory of long ones
VISIBLE = slice(0, 3)  # bands B02 to B04 of Sentinel-2
# What decoders of damaged bytes raise: our own checks, torchvision's images, zstd and numpy, an
# index without a field.
BROKEN = (ValueError, RuntimeError, OSError, KeyError, IndexError, TypeError)


@dataclass
class Grey:
    """An image without colour, for the comparisons between sensors and samples."""

    image: np.ndarray  # H W
    valid: np.ndarray  # N N bool


def read_sample(dataset: ShardDataset, sample: int, shard: str, pixels: Pixels) -> Record:
    """Read a sample; whatever is wrong becomes a failure of its record. ``pixels`` takes in its
    valid pixels if nothing is."""
    record, source = Record(sample, shard), ""
    with failing(record, "index"):
        describe(dataset, sample, record)
    for member in record.sizes:
        with failing(record, member):
            data = dataset.read_member(sample, member)
            source = json.loads(data)["attribution"] if member == "meta" else source
    if record.failures:
        return record
    reading = Reading(dataset, sample, record)
    with failing(record, "labels"):
        reading.labels()
    for name in record.dates:
        with failing(record, name):
            reading.image() if name == "hr" else reading.series(name)
    if not record.failures:
        pixels.merge(reading.pixels)
        compare(record, reading.greys, pixels.pools.setdefault(source, Pool()))
    return record


@contextmanager
def failing(record: Record, member: str) -> Iterator[None]:
    """Turn what decoders raise into a failure of the record; any other error is a bug and passes."""
    try:
        yield
    except BROKEN as error:
        reason = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        record.failures.append(Failure(record.shard, record.key, member, " ".join(reason.split())))


def describe(dataset: ShardDataset, sample: int, record: Record) -> None:
    """Take over what the index says. Raises InputError where it contradicts itself."""
    entry = dataset.entry(sample)
    record.key, record.region, record.cells = entry["key"], dataset.region(sample), entry["cells"]
    record.lon, record.lat, record.dates = entry["lon"], entry["lat"], entry["dates"]
    record.usable = {name: len(frames) for name, frames in entry["usable"].items()}
    record.sizes = {name: member["size"] for name, member in entry["members"].items()}
    record.content = content(entry["members"])
    for name, days in record.dates.items():
        if [date.fromisoformat(day).isoformat() for day in days] != sorted(days):
            raise InputError(
                f"dates of {name}: expected YYYY-MM-DD in ascending order, found {days}"
            )


@dataclass
class Reading:
    """A sample while it is decoded."""

    dataset: ShardDataset
    sample: int
    record: Record
    pixels: Pixels = field(default_factory=Pixels)  # of this sample alone
    greys: dict[str, Grey] = field(default_factory=dict)  # "hr", "ms"

    def labels(self) -> None:
        """Count the classes. Raises InputError for a wrong size or an index without a class."""
        if "labels" not in self.record.sizes:
            return
        labels = decode(self.dataset, self.sample, {}).labels.numpy()  # 8N 8N
        expect("labels", labels.shape, (LABEL_PIXELS * self.record.cells,) * 2)
        counts = np.bincount(labels.ravel(), minlength=256)
        found = [index for index in np.flatnonzero(counts).tolist() if index != UNLABELLED]
        unknown = [index for index in found if index >= len(self.dataset.classes)]
        if unknown:
            raise InputError(
                f"labels: indices {unknown} lie outside the {len(self.dataset.classes)} classes"
            )
        self.record.classes = found
        self.pixels.classes += counts

    def image(self) -> None:
        """Count the high-resolution pixels of valid cells and keep the image in grey; decode its
        reductions too."""
        cells, frames = self.record.cells, {"hr": np.arange(1)}
        for level in range(1, hr_levels(self.record.sizes)):
            reduced = decode(
                self.dataset, self.sample, frames, level=level, labels=False
            ).hr  # 3 pN pN
            expect(hr_field(level), reduced.shape, (3, *(HR_PIXELS * cells >> level,) * 2))
        found = decode(self.dataset, self.sample, frames, labels=False)
        image, valid = found.hr.numpy(), found.valid["hr"][0].numpy()  # 3 32N 32N, N N
        expect("hr", (*image.shape, *valid.shape), (3, *(HR_PIXELS * cells,) * 2, cells, cells))
        self.record.invalid["hr"] = [int((~valid).sum())]
        self.pixels.add("hr", image[:, np.kron(valid, np.ones((HR_PIXELS, HR_PIXELS), bool))])
        self.greys["hr"] = Grey(image.mean(0, dtype=np.float32), valid)

    def series(self, name: str) -> None:
        """Count the valid pixels of all frames, block by block. Of Sentinel-2 keep the brightness
        of the frame with most valid cells; among equals the one nearest to the season of the
        high-resolution image."""
        dates, invalid, best = self.record.dates, [], (-1, 0)
        season = day_index(dates["hr"][0]) if "hr" in dates else 0
        for first in range(0, len(dates[name]), FRAMES):
            frames = np.arange(first, min(first + FRAMES, len(dates[name])))
            found = decode(self.dataset, self.sample, {name: frames}, labels=False)
            series, valid = found.series[name].numpy(), found.valid[name].numpy()  # T C N N, T N N
            expect(name, (*series.shape[2:], *valid.shape[1:]), (self.record.cells,) * 4)
            chosen = series.transpose(1, 0, 2, 3)[:, valid]  # C n
            if not np.isfinite(chosen).all():
                raise InputError(f"{name}: values that are not finite in pixels marked valid")
            self.pixels.add(name, chosen)
            invalid += (~valid).sum((1, 2)).tolist()
            for frame, mask, day in zip(series, valid, dates[name][first:]):
                apart = abs(day_index(day) - season)
                rank = (int(mask.sum()), -min(apart, DAYS - apart))
                if name == "ms" and rank > best:
                    best, self.greys[name] = rank, Grey(frame[VISIBLE].mean(0), mask)
        self.record.invalid[name] = invalid


def expect(what: str, found: tuple, wanted: tuple) -> None:
    """Raises InputError for a shape other than the one that follows from the number of cells."""
    if tuple(found) != wanted:
        raise InputError(f"{what}: expected the sides {wanted}, found {tuple(found)}")


def compare(record: Record, greys: dict[str, Grey], pool: Pool) -> None:
    """Hashes of the looks and, where both images are there, the shift between them; a tile too
    small for that joins the pool of its source."""
    hashes = {name: looks(grey.image, grey.valid) for name, grey in greys.items()}
    record.looks = {name: value for name, value in hashes.items() if value is not None}
    if len(greys) == 2:
        hr, ms = greys["hr"], greys["ms"]
        record.registration = register(hr.image, hr.valid, ms.image, ms.valid)
        if record.cells < LEAST_CELLS:
            pool.add(hr.image, hr.valid, ms.image, ms.valid)
