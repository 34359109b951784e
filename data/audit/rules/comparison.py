"""What a tile shows beside the others: too large, offset, with exchanged bands.

A tile is as far from the others as its k-th nearest neighbour is (k-nearest-neighbour outliers:
Ramaswamy et al. 2000). It is called faulty only if two things hold: it lies far from all, and
undoing one known fault brings it among them. A lake among forests is far, but nothing brings it
near. Neighbours are tiles of other files, so that the tiles of one wrong scene do not vouch for
each other.
"""

from collections.abc import Callable, Iterator
from copy import copy
from itertools import combinations

import numpy as np

from data.audit.measure.fault import LOOK, WRONG, Fault
from data.audit.rules.reference import Rows
from data.audit.rules.tile_rules import ADDED, BIT_DEPTH, DATE, OFFSET
from data.tiles.modalities import MODALITIES
from data.tiles.sensor import BYTE, DECIBEL, REFLECTANCE, Modality

SCALE = "scale"
EXCHANGED = "bands exchanged"

LEAST_BANDS = 4  # fewer leave none by which to choose neighbours of a pair
LEAST_TILES = 12  # fewer are not compared: their typical distance is not known
NEAREST = 3  # the neighbour whose distance counts, and one more for every so many tiles:
TILES_A_NEIGHBOUR = 64
# In units of the typical distance between the tiles. Planted in 16 to 80 real tiles, faults lie
# beyond; no real tile is both far and brought near.
FAR = 3.0
NEAR = 1.5
# Natural logarithms: what undoing gains at least, so that nothing hangs on tiny distances.
LEAST_GAIN = {SCALE: 0.3, OFFSET: 0.1}
# Of a pair of bands, in deviations of such pairs from their neighbours' (1.4826 MAD).
PAIR_FAR = 5.0
PAIR_NEAR = 2.5
LEAST_RATIO = 0.3  # natural logarithm: bands that are alike cannot be told apart
LEAST_SPREAD = 0.05
PAIR_NEIGHBOURS = 5
OWN_TILES = 4  # of a source, for it to be compared with itself
COLOUR_FAR = 5.0
LEAST_COLOUR = 0.35
FLOOR_SHARE = 90  # percentile of the darkest values of all tiles that a tile with an offset exceeds
ROUGH = 0.045  # share of jumps; the roughest of 1890 resampled aerial images has 0.039
ROUGHER = 3.0  # times that of the roughest tiles of the source
ROUGHEST = 99  # percentile
FAR_YEARS = 5
FAR_MADS = 10
YEAR = 365.25
MAD = 1.4826  # times the median absolute deviation is the standard deviation of a normal variable


def logarithms(sensor: Modality, values: np.ndarray) -> np.ndarray:
    """Numbers of a sensor's bands as natural logarithms: equal ratios are equally far."""
    if sensor.unit == DECIBEL:
        return values * (np.log(10) / 10)
    if sensor.unit == REFLECTANCE:
        return np.log(np.maximum(values, 1) + 50)  # 0.005: below, it is noise
    if sensor.unit == BYTE:
        return np.log(np.maximum(values, 0) + 8)
    if not sensor.is_measured:
        return np.asarray(values, np.float64)
    return (values / sensor.scale - np.array(sensor.mean)) / np.array(sensor.std)


def compared_faults(name: str, rows: Rows) -> Iterator[tuple[int, int, Fault]]:
    """Compare every tile of a sensor with the others.

    Args:
        name: key of the sensor.
        rows: of all its tiles.

    Yields:
        Sample, source and fault.
    """
    others = Others(name, rows)
    for chunk in rows.chunks():
        for row in chunk:
            for fault in others.faults(row):
                yield int(row["sample"]), int(row["source"]), fault


class Others:
    """The sampled tiles of one sensor, and how far they lie from each other.

    Args:
        name: key of the sensor.
        rows: of all its tiles.
    """

    def __init__(self, name: str, rows: Rows):
        self.by_source = {s: kept.rows(rows.dtype) for s, kept in rows.of_source.items()}
        self._choose(name, rows.of_all.rows(rows.dtype))

    def _choose(self, name: str, sample: np.ndarray) -> None:
        """Take the rows of ``sample`` for the tiles to compare with."""
        self.sensor = MODALITIES[name]
        self.sample = sample
        self.spectra = logarithms(self.sensor, sample["median"].astype(np.float64))  # n C
        self.nearest = NEAREST + len(self.sample) // TILES_A_NEIGHBOUR
        self.pairs = list(combinations(range(len(self.sensor.bands)), 2))
        self.is_enough = len(self.sample) >= LEAST_TILES
        if self.is_enough:
            self.floor = float(np.percentile(self.sample["low"].min(1), FLOOR_SHARE))
            self.typical = self._typical_distance()
            self.spreads = self._spreads()

    def faults(self, row: np.ndarray) -> list[Fault]:
        """What the comparison says about one row."""
        faults = self._dates(row)
        if self.sensor.unit == BYTE:
            faults += self._colours(row)
        if not self.is_enough or len(self.sensor.bands) < LEAST_BANDS:
            return faults
        return faults + (self._undone(row) or self._pairs(row))

    def without(self, source: int) -> "Others":
        """The tiles of all other sources."""
        others = copy(self)
        others._choose(self.sensor.key, self.sample[self.sample["source"] != source])
        return others

    def source_faults(self, own: np.ndarray) -> list[Fault]:
        """What the comparison says about the median tile of a source with the rows ``own``."""
        if not self.is_enough or len(self.sensor.bands) < LEAST_BANDS:
            return []
        row = own[0].copy()
        row["files"] = -1  # no other tile's
        row["median"] = np.median(own["median"], axis=0)
        row["low"] = np.median(own["low"], axis=0)
        return self._undone(row) or self._pairs(row)

    def distance(self, spectra: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Distance of spectra (m, C) to the k-th nearest tile of other files than the row's: m."""
        apart = self.spectra[self.sample["files"] != row["files"]]
        if len(apart) < self.nearest:
            return np.zeros(len(spectra))
        # |a - b|^2 as |a|^2 - 2 ab + |b|^2: one product, which takes a fifth of the time.
        lengths = (spectra**2).sum(1)[:, None] + (apart**2).sum(1)  # m n
        squares = np.maximum(lengths - 2 * spectra @ apart.T, 0) / spectra.shape[1]
        return np.sqrt(np.partition(squares, self.nearest - 1, axis=1)[:, self.nearest - 1])

    def _typical_distance(self) -> float:
        """Median distance of the sampled tiles to the others."""
        distances = []
        for row, spectrum in zip(self.sample, self.spectra):
            distances.append(float(self.distance(spectrum[None], row)[0]))
        return max(float(np.median(distances)), LEAST_SPREAD)

    def _undone(self, row: np.ndarray) -> list[Fault]:
        """Whether a factor of ten or an added offset, undone, brings the tile among the others."""
        median = row["median"].astype(np.float64)
        attempts: list[tuple[str, str, Callable[[np.ndarray], np.ndarray]]] = []
        if self.sensor.unit == REFLECTANCE:
            attempts = [
                (SCALE, "ten times those", lambda values: values / 10),
                (SCALE, "a tenth of those", lambda values: values * 10),
            ]
            if row["low"].min() >= max(ADDED, self.floor):
                words = f"{ADDED} more, in every band, than those"
                attempts.append((OFFSET, words, lambda values: np.maximum(values - ADDED, 1)))
        if not attempts:
            return []
        spectra = [median, *(undo(median) for _, _, undo in attempts)]
        distances = self.distance(logarithms(self.sensor, np.array(spectra)), row)
        stored = distances[0]
        undone = distances[1:]
        best = int(undone.argmin())
        kind, words, _ = attempts[best]
        limit = FAR
        if kind == OFFSET:  # the floor speaks too
            limit = NEAR
        is_far = stored > limit * self.typical
        is_near = undone[best] < min(NEAR * self.typical, stored - LEAST_GAIN[kind])
        if not (is_far and is_near):
            return []
        reason = (
            f"the numbers are {words} of similar tiles: undone, the distance to the nearest"
            f" {self.nearest} falls from {stored:.2f} to {undone[best]:.2f}, usual is"
            f" {self.typical:.2f}"
        )
        return [Fault(kind, self.sensor.key, WRONG, reason, float(stored / self.typical))]

    def _expected_pair(
        self, spectrum: np.ndarray, near: np.ndarray, pair: tuple[int, int]
    ) -> float:
        """The logarithm of a ratio of two bands in the tiles most like a tile in its other bands.

        Args:
            spectrum: C of the tile.
            near: n C of the tiles that may be neighbours.
            pair: the two bands.
        """
        first, second = pair
        rest = [band for band in range(len(spectrum)) if band not in pair]
        columns = [*rest, first]
        total = (near[:, first] + near[:, second]) / 2  # stays when both change places
        mixed = near[:, columns].copy()
        mixed[:, -1] = total
        own = spectrum[columns].copy()
        own[-1] = (spectrum[first] + spectrum[second]) / 2
        order = np.argsort(((mixed - own) ** 2).sum(1), kind="stable")[:PAIR_NEIGHBOURS]
        return float(np.median(near[order, first] - near[order, second]))

    def _spreads(self) -> dict[tuple[int, int], float]:
        """How far ratios of two bands lie from what the neighbours let expect."""
        spreads = {}
        for pair in self.pairs:
            first, second = pair
            errors = []
            for row, spectrum in zip(self.sample[: LEAST_TILES * 10], self.spectra):
                near = self.spectra[self.sample["files"] != row["files"]]
                if len(near) >= PAIR_NEIGHBOURS:
                    expected = self._expected_pair(spectrum, near, pair)
                    errors.append(abs(spectrum[first] - spectrum[second] - expected))
            spread = LEAST_SPREAD
            if errors:
                spread = max(MAD * float(np.median(errors)), LEAST_SPREAD)
            spreads[pair] = spread
        return spreads

    def _pairs(self, row: np.ndarray) -> list[Fault]:
        """Whether two bands changed places."""
        spectrum = logarithms(self.sensor, row["median"].astype(np.float64))
        pairs = []
        for first, second in self.pairs:
            if abs(spectrum[first] - spectrum[second]) >= LEAST_RATIO:
                pairs.append((first, second))
        swapped = np.repeat(spectrum[None], len(pairs), axis=0)
        for number, (first, second) in enumerate(pairs):
            swapped[number, [first, second]] = spectrum[[second, first]]
        distances = self.distance(np.concatenate([spectrum[None], swapped]), row)
        candidates = np.flatnonzero(distances[1:] < distances[0]).tolist()
        near = self.spectra[self.sample["files"] != row["files"]]
        best: Fault | None = None
        for number in candidates:
            fault = self._pair(spectrum, near, pairs[number])
            if fault is not None and (best is None or fault.strength > best.strength):
                best = fault
        if best is None:
            return []
        return [best]

    def _pair(self, spectrum: np.ndarray, near: np.ndarray, pair: tuple[int, int]) -> Fault | None:
        """Whether a pair of bands fits its neighbours only when exchanged."""
        first, second = pair
        ratio = spectrum[first] - spectrum[second]
        if len(near) < PAIR_NEIGHBOURS:
            return None
        expected = self._expected_pair(spectrum, near, pair)
        stored = abs(ratio - expected) / self.spreads[pair]
        undone = abs(-ratio - expected) / self.spreads[pair]
        if stored < PAIR_FAR or undone > PAIR_NEAR:
            return None
        one = self.sensor.bands[first]
        other = self.sensor.bands[second]
        reason = (
            f"{one} is {np.exp(ratio):.2f} x {other}, in similar tiles {np.exp(expected):.2f} x:"
            f" {stored:.0f} deviations apart; exchanged {undone:.1f}"
        )
        return Fault(EXCHANGED, self.sensor.key, WRONG, reason, stored - undone)

    def _colours(self, row: np.ndarray) -> list[Fault]:
        """Whether a tile is far rougher than its source, or has its colours in another order.

        Three bands leave no others by which to choose neighbours; what a source shows is enough for
        a look, not for a verdict.
        """
        own = self.by_source[int(row["source"])]
        own = own[own["sample"] != row["sample"]]
        if len(own) < OWN_TILES - 1:
            return []
        usual = float(np.percentile(own["jumps"], ROUGHEST))
        if row["jumps"] > max(ROUGH, ROUGHER * usual):
            reason = (
                f"{100 * float(row['jumps']):.1f} % of neighbours lie more than half the range"
                f" apart, {100 * usual:.1f} % in its source; did numbers of more than 8 bits wrap"
                " around?"
            )
            return [Fault(BIT_DEPTH, self.sensor.key, LOOK, reason, float(row["jumps"]))]
        spectrum = logarithms(self.sensor, row["median"].astype(np.float64))
        others = logarithms(self.sensor, own["median"].astype(np.float64))  # n C
        for first, second in self.pairs:
            ratio = spectrum[first] - spectrum[second]
            ratios = others[:, first] - others[:, second]
            expected = float(np.median(ratios))
            spread = max(MAD * float(np.median(np.abs(ratios - expected))), LEAST_COLOUR / 3)
            stored = abs(ratio - expected)
            undone = abs(-ratio - expected)
            if stored > max(COLOUR_FAR * spread, LEAST_COLOUR) and undone < PAIR_NEAR * spread:
                reason = (
                    f"{self.sensor.bands[first]} is {np.exp(ratio):.2f} x"
                    f" {self.sensor.bands[second]}, in its source {np.exp(expected):.2f} x; were"
                    " channels exchanged?"
                )
                strength = float(stored / spread)
                return [Fault(EXCHANGED, self.sensor.key, LOOK, reason, strength)]
        return []

    def _dates(self, row: np.ndarray) -> list[Fault]:
        """Whether a tile's frames lie years from those of its source."""
        days = self.by_source[int(row["source"])]["day"].astype(np.float64)
        if len(days) < LEAST_TILES:
            return []
        middle = float(np.median(days))
        limit = max(FAR_YEARS * YEAR, FAR_MADS * float(np.median(np.abs(days - middle))))
        apart = abs(float(row["day"]) - middle)
        if apart <= limit:
            return []
        reason = f"{apart / YEAR:.0f} years from the middle of its source"
        return [Fault(DATE, self.sensor.key, LOOK, reason, apart / YEAR)]
