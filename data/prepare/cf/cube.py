"""Variables of one file that lie on the same pixels, read as frames with rows from the north."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from affine import Affine
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.cf.axes import (
    DEGREES,
    METRES,
    ROLES,
    TIME,
    Axis,
    X,
    Y,
    axis_name,
    find_axes,
)
from data.prepare.cf.centres import are_stated, centres_of, checked_centres
from data.prepare.cf.grid_mapping import crs_of, geotransform_of
from data.prepare.cf.times import times_of
from data.prepare.cf.variable import Group, Variable, need_variable
from data.prepare.contract.files import File, need_crs
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import ALIGNED
from data.prepare.place.window import Window


@dataclass(frozen=True, kw_only=True)
class AxisKeys:
    """Names of the axes and the CRS, as a manifest gives them; empty: as the file says."""

    time: str | None = ""  # None: the variables have no times
    y: str = ""
    x: str = ""
    crs: str = ""


@dataclass(frozen=True, kw_only=True)
class Cube:
    """An open file whose variables have rows, columns and perhaps times."""

    path: File
    group: Group
    axes: dict[str, Variable]  # role -> the variable with its numbers
    x: Axis  # in the units of the CRS, as ``y``
    y: Axis
    crs: CRS
    has_stated_centres: bool = False  # see ``centres.are_stated``

    @property
    def may_have_corners(self) -> bool:
        """Whether the axes have the numbers that corners of a satellite's pixels have.

        Its pixels of 10 and 20 m begin at multiples of their size, so their centres do not lie
        there.
        """
        if self.has_stated_centres or not self.crs.is_projected:
            return False
        pixels = [axis.first / axis.step for axis in (self.x, self.y)]
        return max(abs(pixel - round(pixel)) for pixel in pixels) <= ALIGNED

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y.length, self.x.length

    @property
    def frames(self) -> int:
        """The number of frames, those without a time included."""
        return math.prod(self.axes[TIME].shape)

    @property
    def georeference(self) -> Georeference:
        """Where the pixels lie, as if rows ran south and columns east."""
        width = abs(self.x.step)
        height = abs(self.y.step)
        top = self.y.lowest_edge + height * self.y.length
        return Georeference(Affine(width, 0, self.x.lowest_edge, 0, -height, top), self.crs)

    def times(self) -> dict[int, datetime]:
        """The UTC time of each frame that has one, by the frame's number.

        Raises:
            InputError: the axis cannot be read, or has no time at all for its frames.
        """
        axis = self.axes[TIME]
        times = times_of(axis)
        if self.frames and not times:
            raise InputError(f"{axis.where}: expected times, found {self.frames} missing ones")
        return times

    def variable(self, name: str, *, may_stand_still: bool = False) -> Variable:
        """A variable on the cube's axes.

        Args:
            name: its name.
            may_stand_still: whether one without times may stand for all frames.

        Raises:
            InputError: it is not there, or has other axes.
        """
        variable = need_variable(self.path, self.group, name)
        positions = self._positions(variable)
        is_still = TIME in self.axes and TIME not in positions
        if is_still and self.frames != 1 and not may_stand_still:
            raise self._other_axes(variable)
        return variable

    def read(self, variable: Variable, window: Window) -> np.ndarray:
        """The stored numbers of a variable in a window.

        Args:
            variable: one on the cube's axes.
            window: rows are counted from the north, columns from the west.

        Returns:
            (T, H, W), rows from north to south and columns from west to east. T is 1 without times.
        """
        wanted = {TIME: slice(None), Y: window.rows, X: window.columns}
        if self._is_rising:
            wanted[Y] = _mirrored(window.rows, self.y.length)
        if self._is_falling:
            wanted[X] = _mirrored(window.columns, self.x.length)
        positions = self._positions(variable)
        selection: list[int | slice] = [0] * len(variable.shape)
        for role, position in positions.items():
            selection[position] = wanted[role]
        array = variable.read(*selection)
        order = sorted(positions, key=positions.__getitem__)
        kept = [role for role in ROLES if role in positions]
        array = array.transpose([order.index(role) for role in kept])
        if TIME not in positions:
            array = array[None]  # 1 H W
        if self._is_rising:
            array = array[:, ::-1]
        if self._is_falling:
            array = array[:, :, ::-1]
        return np.ascontiguousarray(array)

    @property
    def _is_rising(self) -> bool:
        """Whether the rows of the file run from south to north."""
        return self.y.step > 0

    @property
    def _is_falling(self) -> bool:
        """Whether the columns of the file run from east to west."""
        return self.x.step < 0

    def _lengths(self) -> dict[str, int]:
        """The length of each axis, by role."""
        lengths = {Y: self.y.length, X: self.x.length}
        if TIME in self.axes:
            lengths[TIME] = self.frames
        return lengths

    def _positions(self, variable: Variable) -> dict[str, int]:
        """Role -> which axis of a variable it is. Time may be missing.

        Raises:
            InputError: an axis is missing, has another length, or there is one more.
        """
        lengths = self._lengths()
        roles = [role for role in ROLES if role in lengths]
        if variable.axes is None:  # as documented for files that name no axes
            if len(variable.shape) == 2 and TIME in lengths:
                roles.remove(TIME)
            expected = tuple(lengths[role] for role in roles)
            if variable.shape != expected:
                raise InputError(
                    f"{variable.where}: expected {' x '.join(roles)} = {expected}, found "
                    f"{variable.shape} without names of axes"
                )
            return {role: position for position, role in enumerate(roles)}
        role_of = {axis_name(self.axes[role]): role for role in roles}
        positions: dict[str, int] = {}
        for position, name in enumerate(variable.axes):
            role = role_of.get(name)
            length = variable.shape[position]
            if role is None and length == 1:
                continue
            if role is None or role in positions or length != lengths[role]:
                raise self._other_axes(variable)
            positions[role] = position
        for role in roles:
            if role not in positions and role != TIME:
                raise self._other_axes(variable)
        return positions

    def _other_axes(self, variable: Variable) -> InputError:
        lengths = self._lengths()
        expected = {axis_name(self.axes[role]): lengths[role] for role in ROLES if role in lengths}
        found = dict(zip(variable.axes or (), variable.shape))
        return InputError(
            f"{variable.where}: expected the axes {expected} in any order, and others only of "
            f"length 1, found {found}"
        )


def cube_of(path: File, group: Group, names: Sequence[str], keys: AxisKeys) -> Cube:
    """The cube that some variables of an open file form.

    Args:
        path: of the file, for errors.
        group: the open file.
        names: the variables. The first says which axes there are.
        keys: what the manifest says; it wins over the file.

    Raises:
        InputError: an axis or the CRS is missing, odd or contradicts another statement.
    """
    first = need_variable(path, group, names[0])
    wanted = {Y: keys.y, X: keys.x}
    if keys.time is not None:
        wanted[TIME] = keys.time
    axes = find_axes(first, group, wanted)
    x = centres_of(axes[X], group)
    y = centres_of(axes[Y], group)
    if keys.crs:
        crs = need_crs(path, CRS.from_user_input(keys.crs))
    else:
        crs = crs_of(first, group, x=x, y=y)
        for name in names[1:]:
            variable = need_variable(path, group, name)
            if variable.text("grid_mapping") != first.text("grid_mapping"):
                other = crs_of(variable, group, x=x, y=y)
                if other != crs:
                    raise InputError(
                        f"{path}: the grid mappings of {first.name} and {name} are different CRS; "
                        "give the right one with the key 'crs'"
                    )
    x = _in_units_of(crs, x, path)
    y = _in_units_of(crs, y, path)
    geotransform = geotransform_of(first, group, x=x, y=y)
    x, y = checked_centres(first, x, y, geotransform=geotransform)
    return Cube(
        path=path,
        group=group,
        axes=axes,
        x=x,
        y=y,
        crs=crs,
        has_stated_centres=are_stated(first, axes, geotransform),
    )


def _in_units_of(crs: CRS, axis: Axis, path: File) -> Axis:
    """The axis with its numbers in the units of the CRS.

    Raises:
        InputError: its units are unknown, or of another kind.
    """
    is_unstated = axis.units in ("", "1")
    if crs.is_geographic and (is_unstated or axis.units in DEGREES):
        if axis.lowest_edge >= 180:
            return axis.moved(-360)
        return axis
    if is_unstated:
        return axis
    if crs.is_projected and axis.units in METRES:
        return axis.times(METRES[axis.units] / crs.linear_units_factor[1])
    raise InputError(
        f"{path}: {axis.name}: attribute units: {axis.units!r} does not go with the CRS "
        f"{crs.to_string()[:60]}; correct the attribute, or give the key 'crs'"
    )


def _mirrored(pixels: slice, length: int) -> slice:
    """The same pixels counted from the other end."""
    return slice(length - pixels.stop, length - pixels.start)
