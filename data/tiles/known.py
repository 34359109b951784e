"""The sensors that a process knows: the built-in ones, and those of the files that it has opened.

Pixels, batches and charts ask for a sensor by its key, in every corner of the program. So a process
has one table. It is filled where a file that describes sensors is opened: a sensors file, an
archive, a sharded dataset. That may happen any number of times, and nothing in the table is ever
changed but statistics that nobody with the same authority has said yet.
"""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from enum import IntEnum
from threading import Lock

from data.errors import InputError
from data.tiles.sensor import Modality

# What two descriptions of one sensor must have in common; titles and colours may differ.
FACTS = ("bands", "pixels", "unit", "scale", "dtype", "step", "nodata")


class Authority(IntEnum):
    """Who said a sensor's mean and std. The highest is heard; equals must agree."""

    DEFAULT = 0  # the program, or nobody
    DATASET = 1  # a sensors file, an archive or a dataset
    RUN = 2  # ``skysense.data.sensors``


class KnownSensors(Mapping[str, Modality]):
    """Key -> sensor; the built-in ones in their order, then the others by key.

    Args:
        built_in: the sensors that every process knows.
    """

    def __init__(self, built_in: Iterable[Modality]):
        self.built_in = tuple(built_in)
        # Never changed, but replaced as a whole: another thread may be walking over it.
        self._sensors = {sensor.key: sensor for sensor in self.built_in}
        self._authority = dict.fromkeys(self._sensors, Authority.DEFAULT)
        self._lock = Lock()

    def __getitem__(self, key: str) -> Modality:
        return self._sensors[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._sensors)

    def __len__(self) -> int:
        return len(self._sensors)

    def own(self) -> list[Modality]:
        """The sensors that are not built in."""
        return list(self._sensors.values())[len(self.built_in) :]

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Know the built-in sensors alone for a while, as a new process does.

        For a task in a worker process, which serves runs whose files need not agree.
        """
        before = (self._sensors, self._authority)
        self._sensors = {sensor.key: sensor for sensor in self.built_in}
        self._authority = dict.fromkeys(self._sensors, Authority.DEFAULT)
        try:
            yield
        finally:
            self._sensors, self._authority = before

    def described(self) -> list[tuple[Modality, Authority]]:
        """Everything that another process must be told to know the same."""
        return [(sensor, self._authority[key]) for key, sensor in self._sensors.items()]

    def add(
        self,
        sensors: Iterable[Modality],
        where: str,
        authority: Authority = Authority.DATASET,
    ) -> None:
        """Learn the sensors that a file describes; all of them or none.

        Args:
            sensors: the sensors.
            where: the file, for messages.
            authority: how much its statistics count.

        Raises:
            InputError: a sensor contradicts what the process knows of its key.
        """
        with self._lock:
            known = dict(self._sensors)
            authorities = dict(self._authority)
            for sensor in sensors:
                _add(known, authorities, sensor, authority=authority, where=where)
            built_in = {sensor.key: known.pop(sensor.key) for sensor in self.built_in}
            self._authority = authorities
            self._sensors = built_in | {key: known[key] for key in sorted(known)}


def _add(
    known: dict[str, Modality],
    authorities: dict[str, Authority],
    sensor: Modality,
    *,
    authority: Authority,
    where: str,
) -> None:
    """Add one sensor to a table, or compare it with the one that is there."""
    key = sensor.key
    if not sensor.is_measured:
        authority = Authority.DEFAULT
    if key not in known:
        known[key] = sensor
        authorities[key] = authority
        return
    before = known[key]
    for fact in FACTS:
        _compare(before, sensor, fact, where)
    if authority > authorities[key]:
        known[key] = replace(before, mean=sensor.mean, std=sensor.std)
        authorities[key] = authority
    elif authority == authorities[key] != Authority.DEFAULT:
        for fact in ("mean", "std"):
            _compare(before, sensor, fact, where)


def _compare(before: Modality, sensor: Modality, fact: str, where: str) -> None:
    """Raise InputError if two descriptions of a sensor differ in a fact."""
    expected = getattr(before, fact)
    found = getattr(sensor, fact)
    if expected == found or (expected != expected and found != found):  # NaN is NaN here
        return
    advice = "give one of the two sensors another key"
    if fact in ("mean", "std"):
        advice = "say which ones count with skysense.data.sensors"
    raise InputError(
        f"{where}: sensor {sensor.key!r}: expected {fact} {expected}, as this program or a file "
        f"opened before says, found {found}; {advice}"
    )
