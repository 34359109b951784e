"""Which band of a source is which band of a sensor.

A manifest calls a band as the registry does (B02), by a common alias (B2, blue, nir08, Gamma0_VV),
by the source's own name, or by its number from 1.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from data.errors import InputError
from data.tiles.modalities import Modality

# A list of names or of numbers, or an object: band of the sensor -> the source's name or number.
BandKeys = tuple[str | int, ...] | dict[str, str | int]

ALPHA_NAMES = ("alpha", "a", "opacity")
# Words beside a band's name that do not make it another quantity: sensor, level, calibration,
# pixel size, orbit, average.
NEUTRAL = frozenset(
    {"s1", "sentinel1", "iw", "grd", "rtc", "gamma", "gamma0", "sigma", "sigma0", "db"}
    | {"asc", "ascending", "des", "desc", "descending"}
    | {"s2", "sentinel2", "msi", "l2a", "boa", "rho", "refl", "reflectance"}
    | {"mean", "median", "band"}
)
# Pixel sizes, days and times, and the tiles of Sentinel-2.
NEUTRAL_FORM = re.compile(r"\d+m|\d{8}(t\d{6})?|t\d\d[a-z]{3}")
NUMBERED = re.compile(r"((bands?|layer|channel|grey|gray|undefined)?[\s_:#.-]*\d*)", re.IGNORECASE)
REMARK = re.compile(r"[,(\[].*", re.DOTALL)  # "B4, central wavelength 665 nm"


def registry_name(name: str, sensor: Modality) -> str | None:
    """The sensor's own name of a band that is called ``name``; None when it is no band of it."""
    if name in sensor.bands:
        return name
    words = re.findall(r"[a-z0-9]+", REMARK.sub("", name.lower()))
    while len(words) > 1 and words[0].isdigit():  # "0_B2", as stacks of images have it
        del words[0]
    stem = ""
    for word in words:
        if word not in NEUTRAL and not NEUTRAL_FORM.fullmatch(word):
            stem += word
    candidates = set()
    for alias, band in _aliases(sensor).items():
        if _plain(alias) == _plain(stem):
            candidates.add(band)
    if len(candidates) != 1:
        return None
    return candidates.pop()


def _aliases(sensor: Modality) -> dict[str, str]:
    """Every name of the sensor's bands, in lower case, and the band."""
    aliases = dict(sensor.catalogue.bands)
    aliases.update({band.lower(): band for band in sensor.bands})
    known = {}
    for alias, band in aliases.items():
        if band in sensor.bands:
            known[alias] = band
    return known


def _plain(name: str) -> str:
    """A name without what spellings differ in: separators, and the zero of B02."""
    name = re.sub(r"[^a-z0-9]", "", name)
    return re.sub(r"^b0+(?=\d)", "b", name)


def is_opacity(name: str) -> bool:
    """Whether a band that is called ``name`` is one of opacity, which no sensor has."""
    return name.strip().lower() in ALPHA_NAMES


def telling_names(names: Sequence[str | None]) -> list[str | None]:
    """The names that a source gives its bands, None in the place of one that says nothing.

    "Band 1" says nothing, nor do names that are all equal, nor a mere count: b1, b2, b3.
    """
    stripped = [(name or "").strip() for name in names]
    count = [f"b{number}" for number in range(1, len(names) + 1)]
    several = len(names) > 1
    if several and (len(set(stripped)) == 1 or [name.lower() for name in stripped] == count):
        return [None] * len(names)
    telling: list[str | None] = []
    for name in stripped:
        if NUMBERED.fullmatch(name):
            telling.append(None)
        else:
            telling.append(name)
    return telling


def find_bands(
    keys: BandKeys,
    names: Sequence[str | None],
    sensor: Modality,
    *,
    where: object,
    ordered: bool,
    alpha: int | None = None,
) -> dict[str, int]:
    """Find every band of a sensor in a source.

    A list with a name for each band of an ordered source gives their order, and the names of the
    source must not contradict it. A shorter list picks bands by name. Bands that the sensor does
    not have are left out.

    Args:
        keys: the key ``bands`` of a manifest.
        names: what the source calls its bands or variables.
        sensor: the sensor.
        where: the file, for errors.
        ordered: the bands have numbers, as those of a raster and not as variables.
        alpha: the position of a band of opacity, which a list need not name.

    Returns:
        The sensor's bands in registry order, each with its position in ``names``, from 0.

    Raises:
        InputError: a band is missing, named twice, ambiguous, or contradicted by the source.
    """
    for fault in key_faults(keys, sensor):
        raise InputError(f"{where}: {fault}")
    telling = list(names)
    if ordered:
        telling = telling_names(names)
    source = _Source(list(names), telling, sensor=sensor, where=where, ordered=ordered, alpha=alpha)
    if isinstance(keys, dict):
        pairs = [(band, source.position(band, key)) for band, key in keys.items()]
    elif all(band_number(key) is not None for key in keys):
        pairs = source.numbered(keys)
    else:
        pairs = source.listed([str(key) for key in keys])
    return _complete(pairs, keys, sensor, where)


def key_faults(keys: BandKeys, sensor: Modality) -> list[str]:
    """What is wrong with the key ``bands``, whatever the source calls its bands.

    Returns:
        A line for each fault; none when every band of the sensor is named once.
    """
    if not isinstance(keys, dict) and all(band_number(key) is not None for key in keys):
        if len(keys) == len(sensor.bands):
            return []
        return [f"bands {list(keys)}: expected a number for each of {list(sensor.bands)}"]
    names = [registry_name(str(key), sensor) for key in keys]
    faults = []
    missing = [band for band in sensor.bands if band not in names]
    if missing:
        faults.append(
            f"bands {_shown(keys)} lack {missing} of {sensor.key}; say which they are: "
            f'{{"{missing[0]}": the file\'s name or number, ...}}'
        )
    repeated = [band for band in sensor.bands if names.count(band) > 1]
    if repeated:
        faults.append(f"bands {_shown(keys)} name {repeated} of {sensor.key} more than once")
    return faults


def _complete(
    pairs: list[tuple[str, int]], keys: BandKeys, sensor: Modality, where: object
) -> dict[str, int]:
    """Bands and their positions as a table; InputError when two are one band of the source."""
    positions: dict[str, int] = {}
    for name, position in pairs:
        band = registry_name(name, sensor)
        if band is not None and position in positions.values():
            raise InputError(f"{where}: bands {_shown(keys)} name one band of the file twice")
        if band is not None:
            positions[band] = position
    return {band: positions[band] for band in sensor.bands}


@dataclass(frozen=True)
class _Source:
    """The bands of a source as it names them."""

    own: list[str | None]
    names: list[str | None]  # those that say something
    sensor: Modality
    where: object
    ordered: bool
    alpha: int | None

    def numbered(self, keys: Sequence[str | int]) -> list[tuple[str, int]]:
        """A list of numbers: of the sensor's bands in the order of the registry."""
        return [(band, self.position(band, key)) for band, key in zip(self.sensor.bands, keys)]

    def listed(self, keys: list[str]) -> list[tuple[str, int]]:
        """A list of names: of all bands in their order, or of some that the source names."""
        positions = self._order(len(keys))
        if positions is None:
            return [(key, self._named(key)) for key in keys]
        pairs = []
        for key, position in zip(keys, positions):
            self._check_order(key, position)
            pairs.append((key, position))
        return pairs

    def position(self, band: str, key: str | int) -> int:
        """Where a band lies that the manifest calls by the source's name or by a number."""
        number = band_number(key)
        if number is None or key in self.own:
            return self._named(str(key))
        if not self.ordered or not 1 <= number <= len(self.names):
            raise InputError(
                f"{self.where}: band {band}: no band number {number}; {self._summary()}"
            )
        name = self.names[number - 1]
        meaning = None
        if name is not None:
            meaning = registry_name(name, self.sensor)
        if meaning is not None and meaning != registry_name(band, self.sensor):
            raise self._contradiction(band, number - 1)
        return number - 1

    def _order(self, count: int) -> Sequence[int] | None:
        """The positions that a list of ``count`` names stands for, if it names all bands."""
        if not self.ordered:
            return None
        if count == len(self.names):
            return range(count)
        if self.alpha is not None and count == len(self.names) - 1:
            return [i for i in range(len(self.names)) if i != self.alpha]
        return None

    def _check_order(self, key: str, position: int) -> None:
        """Raise InputError when the source calls a band of the sensor something else."""
        name = self.names[position]
        band = registry_name(key, self.sensor)
        if name is None or band is None or name == key:
            return
        if registry_name(name, self.sensor) != band:
            raise self._contradiction(key, position)

    def _contradiction(self, key: str, position: int) -> InputError:
        """The source calls a band something else than the manifest."""
        name = self.names[position]
        return InputError(
            f"{self.where}: the file calls band {position + 1} {name!r}, the manifest {key!r}; "
            f'correct the manifest, or say that it is so: "bands": {{"{key}": "{name}", ...}}'
        )

    def _named(self, key: str) -> int:
        """The position of the one band that is called ``key``, or by another name for it."""
        candidates = [i for i, name in enumerate(self.own) if name == key]
        band = registry_name(key, self.sensor)
        if not candidates and band is not None:
            for i, name in enumerate(self.names):
                if name is not None and registry_name(name, self.sensor) == band:
                    candidates.append(i)
        if len(candidates) > 1:
            same = [self.own[i] for i in candidates]
            raise InputError(
                f"{self.where}: band {key!r} could be any of {same}; "
                "give the file's own name of it, or its number"
            )
        if not candidates:
            kind = "variable"
            if self.ordered:
                kind = "band"
            raise InputError(f"{self.where}: no {kind} {key!r}; {self._summary()}")
        return candidates[0]

    def _summary(self) -> str:
        """What the source has, for errors."""
        telling = [name for name in self.names if name is not None]
        if not self.ordered:
            return f"the file has {telling}"
        if not telling:
            return (
                f"the file has {len(self.names)} bands without names; name all of them in their "
                f'order, or give numbers: {{"{self.sensor.bands[0]}": 1, ...}}'
            )
        return f"the file has {len(self.names)} bands: {telling}"


def band_number(key: str | int) -> int | None:
    """The number that a key is, if it is one; tables give it as text."""
    if isinstance(key, int):
        return key
    if key.isdecimal():
        return int(key)
    return None


def _shown(keys: BandKeys) -> str:
    """The names that a manifest gives, for errors."""
    return str(list(keys))
