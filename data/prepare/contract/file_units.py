"""The units that files name, held against the unit that the manifest takes their numbers for."""

from collections.abc import Mapping

from data.errors import InputError
from data.prepare.contract.radiometry import Radiometry
from data.tiles.modalities import DECIBEL, REFLECTANCE, Modality

# Units in which files give backscatter -> the key that says so.
BACKSCATTER_UNITS = {
    "db": "db",
    "decibel": "db",
    "decibels": "db",
    "power": "power",
    "linear": "power",
    "linear power": "power",
    "intensity": "power",
    "amplitude": "amplitude",
}
# Units of numbers that may be reflectance x 10,000, or reflectance when scaled.
NO_UNIT = ("", "1", "-", "none", "unitless", "dimensionless", "dn", "digital number", "count")
PER_CENT = ("%", "percent", "per cent")

# Units of lengths, as files and sensors write them -> metres.
LENGTHS = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1000.0),
    **dict.fromkeys(("dm", "decimetre", "decimetres", "decimeter", "decimeters"), 0.1),
    **dict.fromkeys(("cm", "centimetre", "centimetres", "centimeter", "centimeters"), 0.01),
    **dict.fromkeys(("mm", "millimetre", "millimetres", "millimeter", "millimeters"), 0.001),
    **dict.fromkeys(("ft", "foot", "feet", "international foot"), 0.3048),
    **dict.fromkeys(("us-ft", "us survey foot", "us_survey_foot", "ftus"), 1200 / 3937),
}


def is_length(sensor: Modality) -> bool:
    """Whether the numbers of a sensor are lengths, such as heights."""
    return sensor.unit.lower() in LENGTHS


def check_unit(unit: str | None, keys: Radiometry, sensor: Modality, *, where: str) -> None:
    """Raise InputError when the unit that a file names is not the one that the keys say."""
    name = (unit or "").strip().lower()
    if sensor.unit == DECIBEL and BACKSCATTER_UNITS.get(name, keys.units) != keys.units:
        raise InputError(
            f"{where}: the file's unit is {unit!r}, the manifest's 'units' {keys.units!r}; "
            f"give 'units': {BACKSCATTER_UNITS[name]!r} (of netcdf_cube, where netcdf_sar was "
            "meant), or correct the file's unit"
        )
    if is_length(sensor) and name in LENGTHS and keys.scale is None:
        factor = LENGTHS[name] / LENGTHS[sensor.unit.lower()]
        if factor != 1:
            raise InputError(
                f"{where}: the file's unit is {unit!r}, the sensor's {sensor.unit!r}; give 'scale' "
                f"{factor:.7g} (or 1 if the file's unit is wrong)"
            )
    if sensor.unit != REFLECTANCE or keys.scale is not None:
        return
    is_reflectance = "reflect" in name and not any(word in name for word in PER_CENT)
    if name.rstrip("s") not in NO_UNIT and not is_reflectance:
        raise InputError(
            f"{where}: the file's unit is {unit!r}; give 'scale' (raw x scale + offset is "
            "reflectance: 0.01 for per cent)"
        )


def need_scale_of_all(
    numbers: Mapping[str, Radiometry],
    keys: Mapping[str, Radiometry],
    sensor: Modality,
    *,
    where: object,
) -> None:
    """Raise InputError when files give a scale for some bands of a sensor and none for others.

    Without a scale numbers are in the unit of the archive, which is hardly so beside bands that
    need one.

    Args:
        numbers: of each band: how its numbers are read.
        keys: what the manifest says of it.
        sensor: the sensor.
        where: the file, for errors.
    """
    told = []
    silent = []
    for band, own in numbers.items():
        if own.scale is None:
            silent.append(band)
        elif keys[band].scale is None and (sensor.unit == REFLECTANCE or not own.is_unchanged):
            told.append(band)
    if told and silent:
        raise InputError(
            f"{where}: the file gives a scale for the bands {told} and none for {silent}; give "
            "'scale' and 'offset' (for single bands 'band_numbers'), or correct the file"
        )
