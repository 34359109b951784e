"""Shapes at the 180th meridian in every form that files have them."""

import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st

from data.tiles.longitudes import cut_at_180, unwrapped, wrapped


def in_turn(shape: shapely.Geometry) -> shapely.Geometry:
    """Each longitude brought into [-180, 180) by itself, so that rings jump."""
    return shapely.transform(
        shape, lambda xy: np.column_stack([(xy[:, 0] + 180) % 360 - 180, xy[:, 1]])
    )


@given(
    st.floats(-540, 539),
    st.floats(-80, 80),
    st.floats(0.01, 20),
    st.integers(1, 9),
    st.booleans(),
    st.booleans(),
)
def test_a_shape_covers_the_same_ground_in_any_form(west, south, wide, parts, jumps, hole):
    shape = shapely.box(west, south, west + wide, south + 1)
    if hole:
        shape -= shapely.box(west + wide / 3, south + 0.3, west + wide / 2, south + 0.6)
    shape = shapely.segmentize(shape, wide / parts)
    written = in_turn(shape) if jumps else shape
    cut = cut_at_180(written)
    assert cut.is_valid and cut.bounds[0] >= -180 and cut.bounds[2] <= 180
    assert cut.area == pytest.approx(shape.area, rel=1e-6)
    across, up = np.random.default_rng(0).random((2, 20)) * 1.2 - 0.1
    lon = west + across * wide
    lat = south + up
    inside = shapely.contains_xy(shape, lon, lat)
    clear = shapely.distance(shape.boundary, shapely.points(lon, lat)) > 1e-6
    there = shapely.contains_xy(cut, (lon + 180) % 360 - 180, lat)
    np.testing.assert_array_equal(there[clear], inside[clear])


def test_parts_on_both_sides_become_one_shape():
    parts = shapely.union(
        shapely.box(179.995, -17, 180, -16.9), shapely.box(-180, -17, -179.995, -16.9)
    )
    assert unwrapped(parts).equals(shapely.box(179.995, -17, 180.005, -16.9))
    assert cut_at_180(parts).equals(parts)


@pytest.mark.parametrize(
    "ring",
    [
        [(-180, -60), (180, -60), (180, 60), (-180, 60)],
        [(-180, -90), (0, -90), (180, -90), (180, 90), (0, 90), (-180, 90)],
        [(-180, -60), (-90, -62), (0, -60), (90, -61), (180, -60), (180, -90), (-180, -90)],
    ],
    ids=["band", "world", "cap with corners"],
)
def test_shapes_around_the_world_stay(ring):
    shape = shapely.Polygon(ring)
    assert cut_at_180(shape).equals(shape)


def test_a_ring_around_a_pole_is_none():
    ring = shapely.Polygon([(lon, 85 + lon % 7 / 10) for lon in range(-180, 180, 10)])
    assert cut_at_180(ring) is None


def test_lines_and_windings():
    line = shapely.LineString([(179.5, 0), (-179.5, 1)])
    assert cut_at_180(line).length == pytest.approx(2**0.5)
    assert [wrapped(lon) for lon in (180, -180, 190, -190, 540, 10.5)] == [
        180,
        -180,
        -170,
        170,
        -180,
        10.5,
    ]
