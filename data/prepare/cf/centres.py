"""Where the pixels of an axis lie, if attributes say more than its numbers.

An axis has the centres of pixels. Some writers give their corners (stackstac by default), and then
only attributes tell: the bounds of CF, and the transform of a raster, which is that of the corners.
"""

import re
from collections.abc import Mapping

import numpy as np
from affine import Affine

from data.errors import InputError
from data.prepare.cf.axes import Axis, spatial_axis
from data.prepare.cf.packing import packing_of
from data.prepare.cf.variable import Group, Variable, find_variable
from data.prepare.place.grid import ALIGNED

HALF = 0.5  # of a pixel: from its corner to its centre


def centres_of(variable: Variable, group: Group) -> Axis:
    """The pixel centres of a coordinate variable, in the units that it has.

    Args:
        variable: the numbers of an axis.
        group: the open file.

    Raises:
        InputError: no evenly spaced numbers, or bounds that do not lie around them.
    """
    axis = spatial_axis(variable)
    name = variable.text("bounds")
    if not name:
        return axis
    folder = variable.name.rpartition("/")[0]
    bounds = find_variable(variable.path, group, f"{folder}/{name}".lstrip("/"))
    if bounds is None:  # whoever chose some variables left it behind
        return axis
    if bounds.shape != (axis.length, 2):
        raise InputError(
            f"{variable.where}: attribute bounds: expected {name!r} with two numbers for each of "
            f"{axis.length} pixels, found {bounds.shape}; correct the attribute, or remove it"
        )
    edges = packing_of(bounds).unpacked(bounds.read())  # N 2
    numbers = axis.first + axis.step * np.arange(axis.length)  # N
    beside = (edges.mean(axis=1) - numbers) / abs(axis.step)  # N
    shift = HALF * float(np.rint(beside.mean() / HALF))
    if abs(shift) > HALF or not (np.abs(beside - shift) <= ALIGNED).all():  # also for NaN
        raise InputError(
            f"{variable.where}: the bounds {name!r} do not lie around its numbers: the first pixel "
            f"is from {edges[0, 0]:.10g} to {edges[0, 1]:.10g}, its number {axis.first:.10g}; "
            "correct one of them, or remove the attribute bounds"
        )
    return axis.moved(shift * abs(axis.step))


def checked_centres(
    variable: Variable, x: Axis, y: Axis, *, geotransform: Affine | None
) -> tuple[Axis, Axis]:
    """Hold the axes of a variable against the transforms that a file has beside them.

    Differences by whole pixels are passed over: whoever cuts a cube keeps the old attribute, and
    the axes are right. Half a pixel along both axes is what stackstac makes of its attribute
    ``transform``: then the axes have the upper left corners. The same beside a GeoTransform is
    refused, because people who write one take centres for corners as often.

    Args:
        variable: the variable, which may have the attribute ``transform``.
        x: its columns, in the units of the CRS.
        y: its rows.
        geotransform: what its grid mapping says.

    Returns:
        The pixel centres of columns and rows.

    Raises:
        InputError: a transform and the axes disagree.
    """
    transform = _transform_of(variable)
    if transform is not None:
        if _is_same_size(transform, x, y) and _lies_at(transform, x, y, part=0):
            x = x.moved(transform.a / 2)
            y = y.moved(transform.e / 2)
        _check(variable, x, y, transform, key="transform")
    if geotransform is not None:
        _check(variable, x, y, geotransform, key="GeoTransform")
    return x, y


def are_stated(
    variable: Variable, axes: Mapping[str, Variable], geotransform: Affine | None
) -> bool:
    """Whether an attribute says where in a pixel the numbers of the axes lie."""
    has_bounds = any(axis.text("bounds") for axis in axes.values())
    return has_bounds or geotransform is not None or _transform_of(variable) is not None


def _transform_of(variable: Variable) -> Affine | None:
    """The attribute ``transform`` in the order of rasterio; None if it is none, or another."""
    words = re.split(r"[\s,()\[\]|]+", variable.text("transform"))
    try:
        numbers = [float(word) for word in words if word]
    except ValueError:
        return None
    if len(numbers) not in (6, 9):
        return None
    return Affine(*numbers[:6])


def _check(variable: Variable, x: Axis, y: Axis, transform: Affine, *, key: str) -> None:
    """Raise InputError where the pixels of a transform lie between those of the axes."""
    if _is_same_size(transform, x, y) and _lies_at(transform, x, y, part=HALF):
        return
    remedy = "correct one of them, or remove the attribute"
    if _is_same_size(transform, x, y) and _lies_at(transform, x, y, part=0):
        remedy = (
            "if the axes have corners of pixels (stackstac without xy_coords='center'), add half a "
            "pixel to them, else correct the attribute"
        )
    raise InputError(
        f"{variable.path}: the attribute {key} (pixels of {transform.a:g} x {transform.e:g} from "
        f"{transform.c:.10g}, {transform.f:.10g}) and the axes {x.name}, {y.name} (centres "
        f"{x.step:g} x {y.step:g} apart from {x.first:.10g}, {y.first:.10g}) disagree; {remedy}"
    )


def _is_same_size(transform: Affine, x: Axis, y: Axis) -> bool:
    """Whether a transform has upright pixels as large as those of the axes."""
    if transform.b or transform.d or not transform.a or not transform.e:
        return False
    sizes = ((transform.a, x), (transform.e, y))
    return all(abs(abs(size / axis.step) - 1) * axis.length <= ALIGNED for size, axis in sizes)


def _lies_at(transform: Affine, x: Axis, y: Axis, *, part: float) -> bool:
    """Whether the numbers of both axes lie at a part of the transform's pixels: 0 the corner."""
    columns = (x.first - transform.c) / transform.a - part
    rows = (y.first - transform.f) / transform.e - part
    return max(abs(columns - round(columns)), abs(rows - round(rows))) <= ALIGNED
