"""Metres on the ground and zones, against the geodesic and the definition of UTM."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Transformer
from rasterio.crs import CRS

from data.prepare.place.projection import is_true_metric, local_crs, turn_of

MERCATOR = "+proj=merc +lon_0=0 +k=1 +x_0=0 +y_0=0 +a=6378137 +b=6378137 +units=m"


@pytest.mark.parametrize(
    "crs, lon, lat, is_metric",
    [
        ("EPSG:32632", 9, 48, True),
        ("EPSG:32632", 5, 0, True),  # over the edge of the zone, as Sentinel-2's tiles are
        ("EPSG:25832", 9, 52, True),
        ("EPSG:2154", 5.4, 49, True),
        ("EPSG:27700", -2, 54, True),
        ("EPSG:2056", 8, 47, True),
        ("EPSG:2053", 29, -26, True),  # axes to the west and to the south
        ("EPSG:3035", 10, 52, True),
        ("EPSG:3035", -8, 39, False),  # 1.2 % off, one way in the north-east, one in the north-west
        ("EPSG:5070", -96, 37.5, False),
        ("EPSG:3857", 32.6, 0.35, False),
        ("EPSG:3857", 10, 55, False),
        (MERCATOR, 10, 55, False),
        ("EPSG:3395", 10, 55, False),
        ("EPSG:3395", 10, 0, True),
        ("EPSG:6933", 10, 30, True),
        ("EPSG:6933", 10, 0, False),
        ("EPSG:6933", 10, 60, False),
        ("EPSG:3413", -45, 70, True),
        ("EPSG:3413", -45, 85, False),
        ("EPSG:3031", 100, -71, True),
        ("EPSG:5041", 0, 90, True),
        ("EPSG:2263", -74, 40.7, False),  # US survey feet
        ("EPSG:4326", 9, 48, False),
    ],
)
def test_metres_are_measured_on_the_ground(crs, lon, lat, is_metric):
    crs = CRS.from_user_input(crs)
    x, y = Transformer.from_crs("OGC:CRS84", crs.to_wkt(), always_xy=True).transform(lon, lat)
    assert is_true_metric(crs, x, y) == is_metric


@given(st.floats(-540, 540), st.floats(-90, 90))
def test_the_zone_of_any_winding_holds_the_point(lon, lat):
    crs = local_crs(lon, lat)
    x, y = Transformer.from_crs("OGC:CRS84", crs.to_wkt(), always_xy=True).transform(lon, lat)
    assert is_true_metric(crs, x, y)
    if -80 <= lat < 84:
        zone = crs.to_epsg() % 100
        middle = 6 * zone - 183
        assert abs((lon - middle + 180) % 360 - 180) <= 3 + 1e-9
        assert (crs.to_epsg() // 100 == 326) == (lat >= 0)
    else:
        assert crs.to_epsg() == (5041 if lat > 0 else 5042)


def test_known_zones():
    zones = {(32.59, 0.35): 32636, (-70, -33): 32719, (190, -17): 32702, (-190, 10): 32659}
    zones |= {(180, 10): 32601, (-180, 10): 32601, (540, 10): 32601, (0, 83.9): 32631}
    for place, number in zones.items():
        assert local_crs(*place).to_epsg() == number


def test_one_turn_of_x():
    assert turn_of(CRS.from_epsg(4326), 9, 48) == pytest.approx(360)
    assert turn_of(CRS.from_epsg(4807), 9, 48) == pytest.approx(400)  # grads
    assert turn_of(CRS.from_epsg(3857), 9, 48) == pytest.approx(2 * np.pi * 6378137)
    for number in (32632, 3035, 3413, 2154):
        assert turn_of(CRS.from_epsg(number), 9, 48) is None
