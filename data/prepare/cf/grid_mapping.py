"""The CRS that a variable says: its grid mapping, in any of the ways in which it is written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyproj
from affine import Affine
from pyproj.exceptions import ProjError
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.cf.axes import Axis, curved_places
from data.prepare.cf.variable import (
    Group,
    Variable,
    attributes_of,
    base_name,
    find_variable,
    text_of,
)
from data.prepare.contract.files import need_crs

USUAL_NAMES = ("spatial_ref", "crs")  # of the grid mapping, where no variable names it
# Attributes that hold a CRS. Some writers give them to the variables or to the whole file.
NAMED = ("crs_wkt", "spatial_ref", "proj4", "proj4_params", "proj4text", "proj:wkt2", "proj:code")
NAMED_LAST = ("crs", "_CRS")
EPSG = ("epsg", "EPSG", "epsg_code", "proj:epsg")
SAME = 0.5  # pixels at the corners by which two descriptions of one CRS may differ
LIKELY = 20  # per cent: how sure PROJ is that a CRS without a name is the one of a number


@dataclass(frozen=True)
class _Statement:
    """A CRS, and the attribute that says it."""

    key: str
    crs: pyproj.CRS


def crs_of(variable: Variable, group: Group, *, x: Axis, y: Axis) -> CRS:
    """The CRS of a variable's axes.

    Args:
        variable: the variable.
        group: the open file.
        x: its columns.
        y: its rows.

    Raises:
        InputError: nothing says the CRS, what says it is unknown, or two attributes contradict.
    """
    path = variable.path
    mapping = _mapping(variable, group, x=x, y=y)
    statements = []
    if mapping is not None:
        statements = _statements(mapping.where, mapping.attributes)
    if not statements:
        statements = _statements(variable.where, variable.attributes)
    if not statements:
        statements = _statements(str(path), attributes_of(path, group, "attributes"))
    if not statements and x.is_degrees and y.is_degrees:
        return CRS.from_epsg(4326)
    if not statements:
        remedy = curved_places(variable, group) or "give the key 'crs', for example EPSG:32631"
        raise InputError(f"{path}: no variable says the CRS; {remedy}")
    first = statements[0]
    for other in statements[1:]:
        if not _is_same(first.crs, other.crs, x=x, y=y):
            raise InputError(
                f"{path}: {first.key} says the CRS {first.crs.name!r}, {other.key} says "
                f"{other.crs.name!r}; give the right one with the key 'crs'"
            )
    return need_crs(path, _numbered(first.crs, x=x, y=y))


def geotransform_of(variable: Variable, group: Group, *, x: Axis, y: Axis) -> Affine | None:
    """The attribute GeoTransform of the grid mapping, in GDAL's order; None for none."""
    mapping = _mapping(variable, group, x=x, y=y)
    if mapping is None or not mapping.text("GeoTransform"):
        return None
    words = re.split(r"[\s,()\[\]]+", mapping.text("GeoTransform"))  # text, or a list of zarr
    try:
        numbers = [float(word) for word in words if word]
    except ValueError:
        numbers = []
    if len(numbers) != 6:
        raise InputError(
            f"{mapping.where}: attribute GeoTransform: expected six numbers, found "
            f"{mapping.text('GeoTransform')[:60]!r}"
        )
    return Affine.from_gdal(*numbers)


def _mapping(variable: Variable, group: Group, *, x: Axis, y: Axis) -> Variable | None:
    """The variable that holds the CRS; None when there is none."""
    text = variable.text("grid_mapping")
    names: Sequence[str] = USUAL_NAMES
    if ":" in text:
        names = [_mapping_of_axes(variable, text, x=x, y=y)]
    elif text:
        names = [text]
    folder = variable.name.rpartition("/")[0]
    for name in names:
        for candidate in (f"{folder}/{name}".lstrip("/"), name):
            mapping = find_variable(variable.path, group, candidate)
            if mapping is not None:
                return mapping
    if text:
        raise InputError(
            f"{variable.where}: attribute grid_mapping: no variable {text!r}; give the key 'crs'"
        )
    return None


def _mapping_of_axes(variable: Variable, text: str, *, x: Axis, y: Axis) -> str:
    """The name in 'crs_a: x y crs_b: lat lon' before the axes that are read."""
    name = ""
    coordinates: dict[str, list[str]] = {}
    for word in text.split():
        if word.endswith(":"):
            name = word[:-1]
            coordinates[name] = []
        elif name:
            coordinates[name].append(base_name(word))
    wanted = {base_name(x.name), base_name(y.name)}
    for name, axes in coordinates.items():
        if wanted <= set(axes):
            return name
    raise InputError(
        f"{variable.where}: attribute grid_mapping: {text!r} has none for the axes "
        f"{sorted(wanted)}; give the key 'crs'"
    )


def _statements(where: str, attributes: dict[str, Any]) -> list[_Statement]:
    """All that some attributes say of a CRS, the most exact first."""
    texts: dict[str, Any] = {}
    for key in (*NAMED, *EPSG, *NAMED_LAST):
        value = attributes.get(key)
        if value is not None and text_of(value):
            texts[key] = value
    statements = []
    for key, value in texts.items():
        statements.append(_Statement(key, _parsed(where, key, value)))
    name = text_of(attributes.get("grid_mapping_name", ""))
    if name:
        statements.append(_Statement("grid_mapping_name", _from_parameters(where, attributes)))
    return statements


def _parsed(where: str, key: str, value: Any) -> pyproj.CRS:
    """The CRS of one attribute."""
    if isinstance(value, dict):  # GDAL's _CRS of zarr: the same in several languages
        value = value.get("wkt", value)
    if not isinstance(value, dict):
        value = text_of(value)
    try:
        if key in EPSG:
            return pyproj.CRS.from_epsg(int(float(value.upper().removeprefix("EPSG:"))))
        return pyproj.CRS.from_user_input(value)
    except (ProjError, ValueError, AttributeError):
        raise InputError(
            f"{where}: attribute {key}: the CRS {str(value)[:60]!r} is unknown; give the key 'crs'"
        ) from None


def _from_parameters(where: str, attributes: dict[str, Any]) -> pyproj.CRS:
    """The CRS of CF's own parameters."""
    parameters: dict[str, Any] = {}
    for key, value in attributes.items():
        if key in (*NAMED, *NAMED_LAST, *EPSG):
            continue
        array = np.asarray(value)
        if array.dtype.kind not in "biuf":
            parameters[key] = text_of(value)
        elif array.size == 1:
            parameters[key] = array.item()
        else:
            parameters[key] = array.tolist()
    try:
        return pyproj.CRS.from_cf(parameters)
    except (ProjError, KeyError, ValueError, TypeError) as error:
        raise InputError(
            f"{where}: grid mapping {text_of(attributes['grid_mapping_name'])!r}: "
            f"{type(error).__name__} {error}; give the key 'crs'"
        ) from None


def _is_same(one: pyproj.CRS, other: pyproj.CRS, *, x: Axis, y: Axis) -> bool:
    """Whether the corners of the axes are the same places in both, to half a pixel."""
    if one.equals(other, ignore_axis_order=True):
        return True
    xs = np.array([x.first, x.first, x.last, x.last])
    ys = np.array([y.first, y.last, y.first, y.last])
    try:
        to_other = pyproj.Transformer.from_crs(one, other, always_xy=True)
        moved = to_other.transform(xs, ys)
    except ProjError:
        return False
    near_x = np.abs(moved[0] - xs) <= SAME * abs(x.step)  # false for what is not finite
    near_y = np.abs(moved[1] - ys) <= SAME * abs(y.step)
    return bool(near_x.all() and near_y.all())


def _numbered(crs: pyproj.CRS, *, x: Axis, y: Axis) -> CRS:
    """A CRS as rasterio has it: the one of the EPSG where that is the same.

    Parameters without names would not compare equal to a tile's CRS, and pixels that lie on the
    tile's grid would be interpolated.
    """
    number = crs.to_epsg()
    if number is None:
        number = crs.to_epsg(min_confidence=LIKELY)
        if number is not None and not _is_same(crs, pyproj.CRS.from_epsg(number), x=x, y=y):
            number = None
    if number is not None:
        return CRS.from_epsg(number)
    return CRS.from_wkt(crs.to_wkt())
