"""Sensors as JSON: in a user's sensors file, in archives, in datasets, beside trained weights.

    {"sensors": [{"key": "landsat", "bands": ["blue", "green", "red"], "gsd": 10, "unit": "K",
                  "dtype": "float32", "nodata": "NaN"}]}

docs/sensors.md has all keys.
"""

import json
import re
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Annotated, Any, Literal
from zlib import crc32

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from data.errors import InputError
from data.suggest import suggest
from data.tiles.sensor import CELL_METRES, CatalogueNames, Display, Modality

KEY = re.compile(r"[a-z][a-z0-9_]*")
# Names of members of a shard, and of a model's feature, that are no sensor's.
TAKEN = re.compile(r"fused|labels|meta|hr_[0-9]+|.*_valid")
MOST_PIXELS = 64  # along a cell
NOT_A_NUMBER = "NaN"  # JSON has no other way to write it
# Of sensors that name no colour; none is a built-in sensor's.
COLOURS = ("#b5651d", "#6a4c93", "#c9a227", "#17a398", "#8d5a97", "#a44a3f", "#5b8c5a", "#40798c")

LEAST_SPAN = 1e-6  # of the scale; only keeps the division by the span of a flat picture finite

Name = Annotated[str, Field(min_length=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Strict(BaseModel):
    """JSON with fixed names and types."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class DisplayDefinition(_Strict):
    """See ``data.tiles.sensor.Display``."""

    colour: Annotated[str, Field(pattern="^#[0-9a-fA-F]{6}$")] | None = None
    true_colour: tuple[str, str, str] | None = None
    least_span: Positive | None = None


class CatalogueDefinition(_Strict):
    """See ``data.tiles.sensor.CatalogueNames``."""

    platforms: tuple[Name, ...] = ()
    bands: dict[str, str] = {}
    classification: Name | None = None

    def names(self) -> CatalogueNames:
        """The names in lower case, in which they are looked for."""
        return CatalogueNames(
            platforms=tuple(platform.lower() for platform in self.platforms),
            bands={name.lower(): band for name, band in self.bands.items()},
            classification=self.classification,
        )


class Definition(_Strict):
    """A sensor; see ``data.tiles.sensor.Modality``."""

    key: str
    title: str = ""
    bands: Annotated[tuple[Name, ...], Field(min_length=1)]
    gsd: Positive
    unit: Name
    scale: Positive = 1.0
    mean: tuple[Finite, ...] = ()
    std: tuple[Positive, ...] = ()
    dtype: Literal["uint8", "uint16", "int16", "float32"]
    step: Positive | None = None
    nodata: float | Literal["NaN"] | None
    display: DisplayDefinition = DisplayDefinition()
    catalogue: CatalogueDefinition = CatalogueDefinition()

    @field_validator("key")
    @classmethod
    def _is_key(cls, key: str) -> str:
        if not KEY.fullmatch(key) or TAKEN.fullmatch(key):
            raise ValueError(
                "expected small letters, digits and '_', a letter first, and not fused, labels, "
                "meta, hr_2 or an ending in _valid"
            )
        return key

    @field_validator("nodata", mode="before")
    @classmethod
    def _is_nodata(cls, nodata: Any) -> Any:
        if isinstance(nodata, bool) or not isinstance(nodata, float | int | str | None):
            raise ValueError('expected a number, "NaN" or null')
        if isinstance(nodata, str):
            if nodata.lower() != "nan":
                raise ValueError('expected a number, "NaN" or null')
            return NOT_A_NUMBER
        return nodata

    @field_validator("gsd")
    @classmethod
    def _divides_a_cell(cls, gsd: float) -> float:
        pixels = CELL_METRES / gsd
        nearest = min(max(1, round(pixels)), MOST_PIXELS)
        if abs(pixels - nearest) > 0.01 * nearest:
            raise ValueError(
                f"expected a whole number of pixels along a cell of {CELL_METRES:g} m, as files "
                f"are resampled to such pixels; the nearest is {CELL_METRES / nearest:.6g}"
            )
        return CELL_METRES / nearest

    @model_validator(mode="after")
    def _fits_together(self) -> "Definition":
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    def _problems(self) -> Iterable[str]:
        """What is wrong with several keys together."""
        bands = len(self.bands)
        if len({_spelling(band) for band in self.bands}) < bands:
            yield (
                f"bands: expected names that differ in letters and digits, found {list(self.bands)}"
            )
        if len(self.mean) != len(self.std) or len(self.mean) not in (0, bands):
            yield (
                f"mean and std: expected a number for each of {bands} bands, or neither of the "
                f"two, found {len(self.mean)} and {len(self.std)}"
            )
        named = {
            "display.true_colour": self.display.true_colour or (),
            "catalogue.bands": self.catalogue.bands.values(),
        }
        for place, names in named.items():
            for name in names:
                if name not in self.bands:
                    yield f"{place}: no band {name!r}{suggest(name, self.bands)}"
        if self.dtype == "float32":
            return
        if self.step is not None:
            yield f"step: expected none for whole numbers, found {self.step:g}"
        if self.nodata is not None and not _is_of_type(self.nodata, self.dtype):
            yield f"nodata: expected a number of type {self.dtype} or null, found {self.nodata}"

    def sensor(self) -> Modality:
        """The sensor that is described."""
        nodata = self.nodata
        if nodata == NOT_A_NUMBER:
            nodata = float("nan")
        display = self.display.model_dump()
        if display["colour"] is None:
            display["colour"] = COLOURS[crc32(self.key.encode()) % len(COLOURS)]
        if display["least_span"] is None:
            display["least_span"] = LEAST_SPAN * self.scale
        own = {
            "title": self.title or self.key,
            "nodata": nodata,
            "display": Display(**display),
            "catalogue": self.catalogue.names(),
        }
        return Modality(**{**self.model_dump(), **own})

    @classmethod
    def of(cls, sensor: Modality) -> "Definition":
        """The description of a sensor."""
        fields = {name: getattr(sensor, name) for name in cls.model_fields}
        if sensor.nodata is not None:
            fields["nodata"] = float(sensor.nodata)
            if isnan(sensor.nodata):
                fields["nodata"] = NOT_A_NUMBER
        fields["display"] = DisplayDefinition(**vars(sensor.display))
        fields["catalogue"] = CatalogueDefinition(**vars(sensor.catalogue))
        return cls(**fields)

    def to_json(self) -> dict[str, Any]:
        """The description as JSON has it."""
        return json.loads(self.model_dump_json())


class SensorsFile(_Strict):
    """A sensors file."""

    sensors: list[Definition]


def read_sensors(path: str | Path) -> list[Definition]:
    """Read a sensors file.

    Raises:
        InputError: there is none, or it is no JSON; or it describes no sensors, with every mistake.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path}: expected a sensors file, found no such file")
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise InputError(f"{path}: not valid JSON ({error})") from None
    return parse_sensors(content, str(path))


def parse_sensors(content: Any, where: str) -> list[Definition]:
    """The sensors that a JSON object describes.

    Args:
        content: as in a sensors file.
        where: the file, for messages.

    Raises:
        InputError: it describes no sensors, one of them wrongly, or one twice; one line with every
            mistake.
    """
    try:
        definitions = SensorsFile.model_validate_json(json.dumps(content)).sensors
    except ValidationError as error:
        mistakes = [_mistake(details, content) for details in error.errors()]
        raise InputError(f"{where}: {'; '.join(mistakes)}") from None
    keys = [definition.key for definition in definitions]
    for key in keys:
        if keys.count(key) > 1:
            raise InputError(f"{where}: sensor {key!r} is described {keys.count(key)} times")
    return definitions


def sensors_of(definitions: Sequence[Definition]) -> list[Modality]:
    """The sensors of some descriptions."""
    return [definition.sensor() for definition in definitions]


def _spelling(band: str) -> str:
    """What tells two names of bands apart when files spell them otherwise."""
    return re.sub(r"[^a-z0-9]", "", band.lower()) or band


def _is_of_type(number: float | str, dtype: str) -> bool:
    """Whether a whole-number type has a number."""
    limits = np.iinfo(dtype)
    if isinstance(number, str) or not number.is_integer():
        return False
    return limits.min <= number <= limits.max


def _mistake(details: ErrorDetails, content: Any) -> str:
    """One mistake in plain words."""
    place = _place(details["loc"], content)
    kind = details["type"]
    if kind == "missing":
        return f"{place}: is missing"
    if kind == "extra_forbidden":
        return f"{place}: no such key{suggest(str(details['loc'][-1]), _keys_at(details['loc']))}"
    message = details["msg"].removeprefix("Value error, ").replace("Input should be", "expected")
    if kind == "value_error" and isinstance(details["input"], dict):
        return f"{place}: {message}"
    return f"{place}: {message[:1].lower()}{message[1:]}, found {json.dumps(details['input'])}"


def _place(location: tuple[int | str, ...], content: Any) -> str:
    """'sensor 'landsat': display.colour' of a location; its number where it has no key."""
    if len(location) < 2:
        return ".".join(map(str, location)) or "content"
    number = location[1]
    name = f"sensors[{number}]"
    entry = content["sensors"][number]
    if isinstance(entry, dict) and isinstance(entry.get("key"), str):
        name = f"sensor {entry['key']!r}"
    # Alternatives of a type have names that mean nothing to a reader.
    keys = [str(step) for step in location[2:] if str(step).isidentifier() or isinstance(step, int)]
    return ": ".join([name, ".".join(keys)]).removesuffix(": ")


def _keys_at(location: tuple[int | str, ...]) -> Iterable[str]:
    """The keys that the object at a location may have."""
    if len(location) == 1:
        return SensorsFile.model_fields
    if location[-2] == "display":
        return DisplayDefinition.model_fields
    if location[-2] == "catalogue":
        return CatalogueDefinition.model_fields
    return Definition.model_fields
