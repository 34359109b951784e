"""The axes of a variable: found by name and attributes, never by their order."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from data.errors import InputError
from data.prepare.cf.packing import packing_of
from data.prepare.cf.variable import Group, Variable, base_name, find_variable, need_variable
from data.prepare.place.grid import ALIGNED

TIME = "time"
Y = "y"
X = "x"
ROLES = (TIME, Y, X)  # in the order in which a series is read

# What names an axis where no attribute does.
NAMES = {
    TIME: ("time", "timestamp", "t", "valid_time", "date"),
    Y: ("y", "lat", "latitude", "northing"),
    X: ("x", "lon", "longitude", "easting"),
}
STANDARD_NAMES = {
    "time": TIME,
    "projection_y_coordinate": Y,
    "latitude": Y,
    "grid_latitude": Y,
    "projection_x_coordinate": X,
    "longitude": X,
    "grid_longitude": X,
}
AXIS_LETTERS = {"T": TIME, "Y": Y, "X": X}
DEGREES_NORTH = {"degrees_north", "degree_north", "degree_n", "degrees_n", "degreen", "degreesn"}
DEGREES_EAST = {"degrees_east", "degree_east", "degree_e", "degrees_e", "degreee", "degreese"}
DEGREES = {*DEGREES_NORTH, *DEGREES_EAST, "degrees", "degree", "deg", "°"}
METRES = {
    **dict.fromkeys(("m", "metre", "metres", "meter", "meters"), 1.0),
    **dict.fromkeys(("km", "kilometre", "kilometres", "kilometer", "kilometers"), 1000.0),
    **dict.fromkeys(("us_survey_foot", "us-ft", "us survey foot"), 1200 / 3937),
    **dict.fromkeys(("ft", "foot", "feet", "international_foot"), 0.3048),
}


@dataclass(frozen=True)
class Axis:
    """Evenly spaced pixel centres, in the order of the file."""

    name: str
    first: float
    step: float  # negative where the numbers fall
    length: int
    units: str = ""  # in lower case

    @property
    def last(self) -> float:
        """The centre of the last pixel."""
        return self.first + self.step * (self.length - 1)

    @property
    def lowest_edge(self) -> float:
        """The outer edge of the pixel with the smallest number."""
        return min(self.first, self.last) - abs(self.step) / 2

    @property
    def is_degrees(self) -> bool:
        """Whether the units are degrees."""
        return self.units in DEGREES

    def times(self, factor: float) -> "Axis":
        """The axis with its numbers multiplied."""
        return replace(self, first=self.first * factor, step=self.step * factor)

    def moved(self, distance: float) -> "Axis":
        """The axis with a distance added to its numbers."""
        return replace(self, first=self.first + distance)


def find_axes(variable: Variable, group: Group, keys: Mapping[str, str]) -> dict[str, Variable]:
    """The coordinate variables of a variable, by role.

    Args:
        variable: a variable with the axes.
        group: the open file.
        keys: role -> the name of its variable, where the manifest gives one; else empty.

    Returns:
        A variable for each role of ``keys``.

    Raises:
        InputError: an axis is not there, several could be it, or its attributes contradict.
    """
    candidates = _coordinates(variable, group)
    return {
        role: _axis_of_role(variable, group, candidates, role=role, key=key)
        for role, key in keys.items()
    }


def _axis_of_role(
    variable: Variable, group: Group, candidates: list[Variable], *, role: str, key: str
) -> Variable:
    """The variable with the numbers of one axis; see ``find_axes``."""
    if key:
        return need_variable(variable.path, group, key)
    own = []  # named like an axis
    others = []
    for candidate in candidates:
        name = base_name(candidate.name)
        if name in (variable.axes or ROLES):
            own.append(candidate)
        else:
            others.append(candidate)
    for coordinates in (own, others):
        axis = _named(variable, coordinates, role)
        if axis is not None:
            return axis
    if role == TIME:  # a single time may belong to the whole file
        axis = _named(variable, _existing(variable, group, NAMES[TIME]), role)
        if axis is not None:
            return axis
    curved = curved_places(variable, group)
    if curved:
        raise InputError(f"{variable.where}: no axis {role}; {curved}")
    names = [axis.name for axis in candidates]
    remedy = ""
    if role == TIME:
        remedy = ", or 'date' for a file of one frame"
    raise InputError(
        f"{variable.where}: no axis {role} among {list(variable.axes or names)}; give the key "
        f"{role!r}: expected a variable {role!r} or one with the attribute standard_name or axis"
        f"{remedy}"
    )


def curved_places(variable: Variable, group: Group) -> str:
    """What to do about a place for each pixel in arrays, in words; empty where there is none."""
    names = dict.fromkeys([*variable.text("coordinates").split(), *NAMES[Y], *NAMES[X]])
    curved = []
    for name in names:
        array = find_variable(variable.path, group, name)
        if array is not None and len(array.shape) == 2 and _stated_role(array) in (Y, X):
            curved.append(array)
    if not curved:
        return ""
    return (
        f"{[array.name for array in curved]} of {curved[0].shape} are a place for each pixel, as "
        "of a swath; resample it to even axes first (gdalwarp -geoloc, pyresample)"
    )


def _named(variable: Variable, candidates: list[Variable], role: str) -> Variable | None:
    """The candidate whose attributes, or else whose name, say a role; None if there is none."""
    stated = [candidate for candidate in candidates if _stated_role(candidate) == role]
    if len(stated) > 1:
        usual = [axis for axis in stated if base_name(axis.name).lower() in NAMES[role]]
        stated = usual or stated
    if len(stated) > 1:
        names = [axis.name for axis in stated]
        raise InputError(
            f"{variable.where}: {names} could all be the axis {role}; give the key {role!r}"
        )
    if stated:
        return stated[0]
    for name in NAMES[role]:
        for candidate in candidates:
            if base_name(candidate.name).lower() == name and _stated_role(candidate) is None:
                return candidate
    return None


def _coordinates(variable: Variable, group: Group) -> list[Variable]:
    """Variables that may be axes: those named like an axis or in the attribute coordinates."""
    names: list[str] = []
    if variable.axes is not None:
        names += variable.axes
    else:
        for usual in NAMES.values():
            names += usual
    names += variable.text("coordinates").split()
    return _existing(variable, group, names)


def _existing(variable: Variable, group: Group, names: Sequence[str]) -> list[Variable]:
    """Those of some variables that are there and may be axes of another."""
    folder = variable.name.rpartition("/")[0]
    axes: dict[str, Variable] = {}
    for name in names:
        for place in (f"{folder}/{name}".lstrip("/"), name):
            axis = find_variable(variable.path, group, place)
            if axis is not None and _may_be_axis(axis, variable) and name not in axes:
                axes[name] = axis
    return list(axes.values())


def _may_be_axis(axis: Variable, variable: Variable) -> bool:
    """Whether a variable has numbers for one of the axes of another, or one number for all."""
    if axis.is_empty_scale or len(axis.shape) > 1:
        return False
    if not axis.shape or variable.axes is None or axis.shape == (1,):
        return True
    return axis_name(axis) in variable.axes


def axis_name(axis: Variable) -> str:
    """The name of the axis that a variable has the numbers of."""
    if axis.axes:
        return axis.axes[0]
    return base_name(axis.name)


def _stated_role(axis: Variable) -> str | None:
    """The role that the attributes say; None when they say none.

    Raises:
        InputError: they contradict.
    """
    units = axis.text("units").lower()
    roles = {
        STANDARD_NAMES.get(axis.text("standard_name").lower()),
        AXIS_LETTERS.get(axis.text("axis").upper()),
    }
    if " since " in units or axis.dtype.kind == "M":
        roles.add(TIME)
    elif units in DEGREES_NORTH:
        roles.add(Y)
    elif units in DEGREES_EAST:
        roles.add(X)
    roles.discard(None)
    if len(roles) > 1:
        raise InputError(
            f"{axis.where}: the attributes standard_name, axis and units name "
            f"several axes: {sorted(map(str, roles))}"
        )
    return next(iter(roles), None)


def spatial_axis(variable: Variable) -> Axis:
    """The pixel centres of a coordinate variable, in the units that it has.

    Raises:
        InputError: fewer than two numbers, a missing one, or uneven steps.
    """
    if len(variable.shape) != 1 or variable.shape[0] < 2:
        raise InputError(
            f"{variable.where}: expected an axis of at least two numbers, found {variable.shape}; "
            "a place for each pixel, as of a swath, must be resampled to even axes first"
        )
    values = packing_of(variable).unpacked(variable.read())
    length = len(values)
    step = (values[-1] - values[0]) / (length - 1)
    drift = np.abs(values - (values[0] + step * np.arange(length)))
    if not step or not (drift <= ALIGNED * abs(step)).all():  # also for NaN
        raise InputError(f"{variable.where}: expected evenly spaced pixel centres")
    return Axis(
        name=variable.name,
        first=float(values[0]),
        step=float(step),
        length=length,
        units=variable.text("units").lower(),
    )
