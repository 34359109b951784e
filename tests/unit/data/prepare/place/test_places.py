"""Pixels that say where they are: rasters of any CRS, winding and direction, read onto tiles."""

from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin
from pyproj import Geod, Proj, Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.contract.placement import tile_grid
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample_labels
from data.prepare.place.spot import Centre, Spot, footprint
from data.prepare.readers.geotiff import GeoTiffImage
from data.prepare.readers.rasters import place_of

REACH = 400.0  # metres of a raster on each side of its place
CELLS = 16  # of a tile with a place of its own
EARTH = Geod(ellps="WGS84")
NEAR_180 = [179.9999, -180.0, 180.002, 195.0, -190.0, 359.999, -359.999, 538.0]
# CRS -> where it is used: longitudes and latitudes.
USED = {
    "EPSG:32632": ((5.5, 12.5), (0, 84)),
    "EPSG:32701": ((-180.5, -173.5), (-80, 0)),
    "EPSG:32660": ((173.5, 180.5), (0, 84)),
    "EPSG:2154": ((-4, 8), (42, 51)),
    "EPSG:3035": ((-9, 30), (36, 69)),
    "EPSG:5070": ((-120, -70), (25, 49)),
    "EPSG:2263": ((-75, -72), (40.2, 41.2)),
    "EPSG:3857": ((-179.9, 179.9), (-80, 80)),
    "EPSG:3395": ((-179.9, 179.9), (-80, 80)),
    "EPSG:6933": ((-179.9, 179.9), (-75, 75)),
    "EPSG:3413": ((-180, 180), (58, 89.9)),
    "EPSG:3995": ((-180, 180), (58, 89.9)),
    "EPSG:3031": ((-180, 180), (-89.9, -58)),
    "EPSG:5041": ((-180, 180), (80, 89.9)),
    "EPSG:4326": ((-539, 539), (-89.8, 89.8)),
    "+proj=merc +lat_ts=41 +lon_0=100 +ellps=WGS84 +units=m": ((10, 190), (-70, 70)),
    "+proj=laea +lat_0=-20 +lon_0=175 +datum=WGS84 +units=m": ((170, 190), (-30, -10)),
}


@cache
def to_degrees(wkt: str) -> Transformer:
    """From a CRS to longitude and latitude."""
    return Transformer.from_crs(wkt, "OGC:CRS84", always_xy=True)


@dataclass
class Scene:
    """A raster around a place."""

    crs: CRS
    transform: Affine
    shape: tuple[int, int]
    lon: float  # of the place, wound as in the raster
    lat: float
    pixel: float  # metres on the ground, of the longer side

    def here(self, crs: CRS, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Metres to the east and to the north of the place (2, ...) of points of ``crs``."""
        plane = Proj(f"+proj=aeqd +lat_0={self.lat} +lon_0={self.lon} +ellps=WGS84")
        return np.stack(plane(*to_degrees(crs.to_wkt()).transform(x, y)))

    @cached_property
    def ground(self) -> np.ndarray:
        """Where each pixel lies: ``here`` (2, H, W)."""
        columns, rows = np.meshgrid(np.arange(self.shape[1]) + 0.5, np.arange(self.shape[0]) + 0.5)
        return self.here(
            self.crs,
            self.transform.c + columns * self.transform.a,
            self.transform.f + rows * self.transform.e,
        )


@st.composite
def scenes(draw):
    """A raster of 4 to 25 m around a place where its CRS is used, in any direction."""
    name = draw(st.one_of(st.just("EPSG:4326"), *[st.sampled_from(sorted(USED))] * 3))
    crs = CRS.from_user_input(name)
    lons, lats = USED[name]
    lon = draw(st.one_of(st.floats(*lons), st.sampled_from(NEAR_180)))
    if not lons[0] <= lon <= lons[1]:
        lon = (lons[0] + lons[1]) / 2
    lat = draw(st.floats(*lats))
    back = to_degrees(crs.to_wkt())
    x, y = back.transform(lon, lat, direction="INVERSE")
    # Metres of one unit of x and of y, a hundredth of a pixel at most.
    step = 1e-5 if crs.is_geographic else 1.0
    lon_x, lat_x = back.transform([x, x + step, x], [y, y, y + step])
    unit = EARTH.inv([lon_x[0]] * 2, [lat_x[0]] * 2, lon_x[1:], lat_x[1:])[2] / np.array(step)
    metres = draw(st.floats(5, 25))
    size = metres / unit  # of a pixel along x and y, in units of the CRS
    reach = int(np.ceil(REACH / metres))
    columns = 2 * reach + draw(st.integers(0, 5))
    rows = 2 * reach + draw(st.integers(0, 5))
    left = x - (reach + draw(st.floats(0, 1))) * size[0]
    top = y + (reach + draw(st.floats(0, 1))) * size[1]
    transform = Affine(size[0], 0, left, 0, -size[1], top)
    if draw(st.booleans()):  # rows to the north
        transform = transform @ Affine.translation(0, rows) @ Affine.scale(1, -1)
    if draw(st.booleans()):  # columns to the west
        transform = transform @ Affine.translation(columns, 0) @ Affine.scale(-1, 1)
    return Scene(crs, transform, (rows, columns), lon, lat, metres)


@st.composite
def spots(draw, scene: Scene) -> Spot | None:
    """No place, a centre, or a footprint of any winding, over the middle of the scene."""
    kind = draw(st.sampled_from(["none", "centre", "footprint"]))
    lon = scene.lon + 360 * draw(st.sampled_from([-1, 0, 1]))
    if kind == "none" or abs(lon) > 539:
        return None
    if kind == "centre":
        return Centre(lon, scene.lat, CELLS)
    side = CELLS * 10 / 111_320
    east = side / np.cos(np.radians(scene.lat))
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1], [-1, -1]]) * [east / 2, side / 2]
    ring = corners + np.array([lon, scene.lat])
    if draw(st.booleans()):
        ring[:, 0] = (ring[:, 0] + 180) % 360 - 180  # a ring that may jump
    return footprint({"type": "Polygon", "coordinates": [ring.tolist()]}, "here")


def write(path, scene: Scene) -> None:
    """The scene's file: dB that say how far east and north each pixel lies."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=scene.shape[1],
        height=scene.shape[0],
        count=2,
        dtype="float32",
        crs=scene.crs,
        transform=scene.transform,
    ) as dataset:
        dataset.write((scene.ground / 200 - [[[8]], [[16]]]).astype(np.float32))


def centres(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates of the middle of each cell."""
    steps = 10 * np.arange(grid.cells) + 5
    return np.meshgrid(grid.x0 + steps, grid.y0 - steps)


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_every_cell_holds_the_ground_that_lies_there(tmp_path, data):
    scene = data.draw(scenes())
    spot = data.draw(spots(scene))
    write(tmp_path / "a.tif", scene)
    reader = GeoTiffImage(tmp_path / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01")
    reader.check()
    grid = tile_grid((reader,), spot, "a")
    x, y = centres(grid)
    true = scene.here(grid.crs, x, y)  # 2 n n

    # The cells are 10 m on the ground.
    for step in np.diff(true, axis=1), np.diff(true, axis=2):
        assert np.abs(np.hypot(*step) - 10).max() < 0.07
    # They cover the place, or most of the raster.
    if spot is None:
        assert grid.cells * 10 > 0.6 * 2 * REACH
    else:
        assert CELLS <= grid.cells <= 1.5 * CELLS + 1
        assert np.abs(true.mean(axis=(1, 2))).max() < 20

    (frames,) = reader.read(grid)
    assert frames.valid.mean() > 0.99
    error = np.hypot(*((frames.array[0] + [[[8]], [[16]]]) * 200 - true))
    assert error[frames.valid[0]].max() < 0.5 * max(scene.pixel, 10)

    rows, columns = scene.shape
    codes = np.arange(rows * columns, dtype=np.int32).reshape(rows, columns)
    window = reader.place().window(grid)
    drawn = resample_labels(
        codes[window.rows, window.columns], window.georeference, grid, pixels=1, fill=-1
    )
    seen = drawn >= 0
    assert seen.mean() > 0.99
    nearest = scene.ground.reshape(2, -1)[:, drawn]  # 2 n n
    assert np.hypot(*(nearest - true))[seen].max() < 0.75 * scene.pixel  # half a diagonal


def write_numbers(path, crs: str, transform: Affine, side: int = 224) -> np.ndarray:
    """A raster of 10 m pixels of the sensor 'sar' with random numbers, which it returns."""
    numbers = np.random.default_rng(0).uniform(-12, -8, (2, side, side)).astype(np.float32)
    numbers[1] -= 7
    profile = {"driver": "GTiff", "width": side, "height": side, "count": 2, "dtype": "float32"}
    with rasterio.open(path, "w", **profile, crs=crs, transform=transform) as dataset:
        dataset.write(numbers)
    return numbers


def bounds_of(cells: int, *, left: float, top: float, crs: str) -> dict:
    """A square in degrees, as a footprint of a manifest."""
    side = 10 * cells
    x = np.array([left, left + side, left + side, left, left])
    y = np.array([top, top, top - side, top - side, top])
    ring = np.column_stack(to_degrees(crs).transform(x, y)).round(7)
    return {"type": "Polygon", "coordinates": [ring.tolist()]}


@pytest.mark.parametrize("off", [5.0, 3.7, 0.0])
@pytest.mark.parametrize("crs", ["EPSG:32631", "EPSG:3035"])
@pytest.mark.parametrize("south_up", [False, True])
def test_pixels_of_10_m_are_the_cells_wherever_they_lie(tmp_path, off, crs, south_up):
    """Nothing is interpolated: of pixels half a cell beside multiples of 10 m, too."""
    x, y = to_degrees(crs).transform(6.2, 50.0, direction="INVERSE")
    left = round(x, -1) + off
    top = round(y, -1) + off
    transform = Affine(10, 0, left, 0, -10, top)
    if south_up:
        transform = transform @ Affine.translation(0, 224) @ Affine.scale(1, -1)
    numbers = write_numbers(tmp_path / "a.tif", crs, transform)
    if south_up:
        numbers = numbers[:, ::-1]
    reader = GeoTiffImage(tmp_path / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01")
    square = bounds_of(32, left=left + 640, top=top - 960, crs=crs)
    lon, lat = to_degrees(crs).transform(left + 640 + 160, top - 960 - 160)
    spots_and_cells = [
        (None, 0, 0, 224),
        (Centre(lon, lat, 32), 96, 64, 32),
        (Centre(lon + 360, lat, 32), 96, 64, 32),
        (footprint(square, "here"), 96, 64, 32),
    ]
    for spot, row, column, cells in spots_and_cells:
        grid = tile_grid((reader,), spot, "a")
        assert grid == Grid(CRS.from_user_input(crs), left + 10 * column, top - 10 * row, cells)
        (frames,) = reader.read(grid)
        expected = numbers[:, row : row + cells, column : column + cells]
        np.testing.assert_array_equal(frames.array[0], expected)
        assert frames.valid.all()


def test_ten_units_that_are_not_10_m_are_resampled_in_the_zone(tmp_path):
    for crs, lon, lat in (("EPSG:3857", 6.2, 50), ("EPSG:6933", 6.2, 50), ("EPSG:3035", -8, 39)):
        x, y = to_degrees(crs).transform(lon, lat, direction="INVERSE")
        write_numbers(tmp_path / "a.tif", crs, Affine(10, 0, x, 0, -10, y))
        reader = GeoTiffImage(tmp_path / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01")
        grid = tile_grid((reader,), None, "a")
        assert grid.crs.to_epsg() == (32632 if lon > 6 else 32629)
        assert grid.x0 % 10 == 0 and grid.y0 % 10 == 0


def test_a_projection_that_starts_anew_inside_the_tile_is_refused(tmp_path):
    edge = 20_037_508.342789244
    write_numbers(tmp_path / "a.tif", "EPSG:3857", Affine(10, 0, edge - 1120, 0, -10, 0))
    reader = GeoTiffImage(tmp_path / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01")
    for spot in (None, Centre(180, -0.005, 32)):
        with pytest.raises(InputError, match="'a': a.tif: the tile lies across the meridian"):
            tile_grid((reader,), spot, "a")
    for lon in (-179.995, 179.995):  # each side by itself is read, beyond the edge too
        grid = tile_grid((reader,), Centre(lon, -0.01, 32), "a")
        (frames,) = reader.read(grid)
        assert frames.valid.all()


def test_the_point_of_a_pixel_may_be_its_middle(tmp_path):
    """A file written without GDAL: raster type 2, tied to the middle of its first pixel."""
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[33550] = (10.0, 10.0, 0.0)
    tags[33922] = (0.0, 0.0, 0.0, 500_005.0, 5_399_995.0, 0.0)
    tags[34735] = (1, 1, 0, 3, 1024, 0, 1, 1, 1025, 0, 1, 2, 3072, 0, 1, 32632)
    tags.tagtype.update({33550: 12, 33922: 12, 34735: 3})
    Image.fromarray(np.full((64, 64), -9, np.float32)).save(tmp_path / "a.tif", tiffinfo=tags)
    with rasterio.open(tmp_path / "a.tif") as dataset:
        assert place_of(dataset, "sar").georeference == Georeference(
            Affine(10, 0, 500_000, 0, -10, 5_400_000), CRS.from_epsg(32632)
        )


@pytest.mark.parametrize("height", [160, 150])
def test_a_footprint_of_whole_cells_is_the_tile(height):
    """Wherever its corner lies: no row or column is added that the footprint has not."""
    left, top = 600085.25, 5700003.5
    bounds = [left, top - height, left + 160, top]
    grid = footprint({"bounds": bounds, "crs": "EPSG:32631"}, "here").grid()
    assert (grid.cells, grid.x0, grid.y0) == (16, left, top)
