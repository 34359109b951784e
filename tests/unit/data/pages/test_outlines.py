"""Outlines of countries: land and sea, what is cut at the 180th meridian, how the file is made."""

import json

import numpy as np
import pytest
import shapely

from data.pages import outlines
from data.pages.outlines import countries

LAND = [(32.5, 0.3), (4.4, 50.8), (-60.0, -3.0), (178.0, 67.0), (-175.0, 67.0), (0.0, -80.0)]
SEA = [(-30.0, 0.0), (-150.0, 68.9 + 3), (160.0, 40.0), (0.0, -16.5), (60.0, -16.5)]


def test_outlines_are_the_worlds_countries():
    rings = countries()
    land = shapely.union_all([shapely.make_valid(shapely.Polygon(ring)) for ring in rings])
    assert shapely.contains_xy(land, *np.transpose(LAND)).all()
    assert not shapely.contains_xy(land, *np.transpose(SEA)).any()
    points = np.concatenate(rings)
    assert (np.abs(points) <= (180, 90)).all()
    assert outlines.FILE.stat().st_size < 50_000


def test_no_outline_crosses_the_map():
    for ring in countries():
        jumps = np.abs(np.diff(ring[:, 0]))
        assert jumps.max() < 180 or ring[:, 1].min() < -80  # Antarctica goes around the pole


@pytest.fixture
def source(tmp_path):
    """Two countries, one of them on both sides of the 180th meridian."""
    inland = [[10, 10], [20, 10], [20, 20], [10, 20], [10, 10]]
    across = [[170, 0], [-170, 0], [-170, 5], [170, 5], [170, 0]]
    features = []
    for ring in (inland, across):
        geometry = {"type": "Polygon", "coordinates": [ring]}
        features.append({"type": "Feature", "properties": {}, "geometry": geometry})
    path = tmp_path / "source.json"
    path.write_text(
        json.dumps({"type": "FeatureCollection", "name": "countries", "features": features})
    )
    return path


def test_the_file_is_made_from_polygons(source, tmp_path, monkeypatch):
    monkeypatch.setattr(outlines, "FILE", tmp_path / "made.npz")
    outlines.make(source, outlines.FILE)
    countries.cache_clear()
    try:
        rings = countries()
    finally:
        countries.cache_clear()
    boxes = sorted((*ring.min(0).tolist(), *ring.max(0).tolist()) for ring in rings)
    assert boxes == [(-180, 0, -170, 5), (10, 10, 20, 20), (170, 0, 180, 5)]
