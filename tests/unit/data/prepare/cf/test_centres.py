"""Axes that name corners of pixels, and what tells it."""

import numpy as np
import pytest
import zarr
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.cf.cube import AxisKeys, cube_of
from data.prepare.place.grid import Grid
from data.prepare.readers.cube import CORNERS, ZarrCube
from tests.unit.data.prepare.cf.stores import EAST, LEFT, NORTH, TOP, UTM, N, axes_of, write_store
from tests.unit.data.prepare.readers.rasters import MS

CORNERS_X = EAST - 5
CORNERS_Y = NORTH + 5
PLACE = Affine(10, 0, LEFT, 0, -10, TOP)


def cube(path, x, y, attributes=None, **changes):
    """A cube on some axes, (numbers, attributes) each, whose variable has some attributes."""
    variables = axes_of(1, x=(("x",), *x), y=(("y",), *y), **changes)
    variables["B"] = (("time", "y", "x"), np.zeros((1, N, N)), attributes or {})
    write_store(path, "zarr 3", variables)
    return cube_of(path, zarr.open_group(str(path)), ["B"], AxisKeys())


@settings(max_examples=25, deadline=None)
@given(
    columns=st.integers(-5, 5),
    rows=st.integers(-5, 5),
    rising=st.booleans(),
    corners=st.booleans(),
    whole=st.booleans(),
)
def test_a_transform_says_whether_axes_have_corners(
    tmp_path_factory, columns, rows, rising, corners, whole
):
    """As stackstac writes it, also after a cut and with rows in another order."""
    x = CORNERS_X if corners else EAST
    y = CORNERS_Y if corners else NORTH
    if rising:
        y = y[::-1]
    numbers = list(PLACE @ Affine.translation(columns, rows))
    path = tmp_path_factory.mktemp("a") / "a.zarr"
    attributes = {"transform": numbers if whole else numbers[:6]}
    assert tuple(cube(path, (x, {}), (y, {}), attributes).georeference.transform) == tuple(PLACE)


def bounds(numbers, gap, falling=False):
    """Edges of pixels of 10 m that lie around some numbers plus a gap."""
    edges = np.stack([numbers + gap - 5, numbers + gap + 5], axis=1)
    return edges[:, ::-1] if falling else edges


@pytest.mark.parametrize("corners", [False, True])
def test_bounds_are_the_edges_of_the_pixels(tmp_path, corners):
    gap = 5 if corners else 0
    x = CORNERS_X if corners else EAST
    y = CORNERS_Y if corners else NORTH
    changes = {
        "x_edges": (("x", "two"), bounds(x, gap), {}),
        "y_edges": (("y", "two"), bounds(y, -gap, falling=True), {}),
    }
    made = cube(tmp_path / "a", (x, {"bounds": "x_edges"}), (y, {"bounds": "y_edges"}), **changes)
    assert tuple(made.georeference.transform) == tuple(PLACE)
    left = cube(tmp_path / "b", (EAST, {"bounds": "gone"}), (NORTH, {}))  # after a selection
    assert tuple(left.georeference.transform) == tuple(PLACE)


@pytest.mark.parametrize(
    "edges, words",
    [
        (bounds(EAST, 2), "x: the bounds 'edges' do not lie around its numbers: .*600002"),
        (bounds(EAST, 10), "do not lie around"),
        (bounds(EAST, np.nan), "do not lie around"),
        (EAST, "x: attribute bounds: expected 'edges' with two numbers for each of 8"),
    ],
)
def test_other_bounds_are_refused(tmp_path, edges, words):
    axes = ("x", "two")[: np.ndim(edges)]
    with pytest.raises(InputError, match=words):
        cube(tmp_path / "a", (EAST, {"bounds": "edges"}), (NORTH, {}), edges=(axes, edges, {}))


def test_transforms_that_disagree_are_refused(tmp_path):
    words = "the attribute transform .* and the axes x, y .* disagree; correct one"
    for name, wrong in (("a", [10, 0, LEFT + 3, 0, -10, TOP]), ("b", [20, 0, LEFT, 0, -20, TOP])):
        with pytest.raises(InputError, match=words):
            cube(tmp_path / name, (EAST, {}), (NORTH, {}), {"transform": wrong})
    mapping = {"crs_wkt": UTM.to_wkt(), "GeoTransform": f"{LEFT} 10 0 {TOP} 0 -10"}
    axes = (CORNERS_X, {}), (CORNERS_Y, {})
    with pytest.raises(InputError, match="GeoTransform .* if the axes have corners of pixels"):
        cube(tmp_path / "c", *axes, spatial_ref=((), np.int32(0), mapping))
    other = {"transform": "log10"}  # somebody's own attribute
    assert cube(tmp_path / "d", (EAST, {}), (NORTH, {}), other).georeference.transform == PLACE


@pytest.mark.parametrize("shift, is_told", [(-5, True), (0, False), (-2, False)])
def test_axes_that_may_have_corners_are_told(tmp_path, shift, is_told):
    variables = axes_of(1, x=(("x",), EAST + shift, {}), y=(("y",), NORTH - shift, {}))
    for band in MS:
        variables[band] = (("time", "y", "x"), np.full((1, N, N), 1500, np.uint16), {})
    path = write_store(tmp_path / "a.zarr", "zarr 3", variables)
    reader = ZarrCube(path=path, modality="ms", bands={band: band for band in MS})
    reader.check()
    items = reader.read(Grid(UTM, LEFT, TOP, N))
    assert (CORNERS in items) == is_told
