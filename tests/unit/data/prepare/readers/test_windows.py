"""Where pixels land: a ground function that is known everywhere is written as a raster of any CRS,
pixel size, offset and window, and read back onto a tile's grid."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from rasterio.coords import BoundingBox
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.source import Place
from data.prepare.manifest.entry import Entry
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid, Lattice, grid_at, grid_over
from data.prepare.place.resample import resample
from data.prepare.place.spot import Centre, footprint
from data.prepare.place.window import window_of
from data.prepare.readers.geotiff import GeoTiffImage

PLACES = {
    32632: (9.3, 48.2),
    2154: (5.38, 49.09),
    3857: (32.59, 0.35),
    4326: (-70.6, -33.4),
    25832: (8.1, 52.1),
    32719: (-70.6, -33.4),
    3035: (12.5, 55.7),
}


FEW = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@st.composite
def scenes(draw):
    """(transform, crs, shape, grid, ground size of a pixel): a raster that covers a tile of 4 to 12
    cells and more."""
    epsg = draw(st.sampled_from(sorted(PLACES)))
    lon, lat = PLACES[epsg]
    crs = CRS.from_epsg(epsg)
    x, y = Transformer.from_crs(4326, epsg, always_xy=True).transform(lon, lat)
    metres = draw(st.floats(1, 35))
    unit = 1 / 111_320 if epsg == 4326 else 1 / np.cos(np.radians(lat)) if epsg == 3857 else 1.0
    pixel = metres * unit
    grid = grid_at(
        lon + draw(st.floats(-1e-3, 1e-3)),
        lat + draw(st.floats(-1e-3, 1e-3)),
        cells=draw(st.integers(4, 12)),
    )
    reach = int(
        np.ceil(260 / metres)
    )  # pixels on each side of the point: over the tile wherever it lies around it
    left, right, up, down = (reach + draw(st.integers(0, 7)) for _ in range(4))
    dx, dy = draw(st.floats(0, 1)), draw(st.floats(0, 1))
    transform = Affine(pixel, 0, x - (left + dx) * pixel, 0, -pixel, y + (up + dy) * pixel)
    return transform, crs, (up + down, left + right), grid, metres


def ground(
    transform: Affine, crs: CRS, shape: tuple[int, int], grid: Grid
) -> tuple[np.ndarray, np.ndarray]:
    """Metres east and south of the grid's corner of every pixel centre, by pyproj."""
    columns, rows = np.meshgrid(np.arange(shape[1]) + 0.5, np.arange(shape[0]) + 0.5)
    x, y = Transformer.from_crs(crs, grid.crs, always_xy=True).transform(
        transform.c + columns * transform.a, transform.f + rows * transform.e
    )
    return x - grid.x0, grid.y0 - y


@FEW
@given(scenes())
def test_every_pixel_is_where_it_was_and_a_window_is_enough(tmp_path, scene):
    transform, crs, shape, grid, metres = scene
    path = tmp_path / "scene.tif"
    planes = np.stack(ground(transform, crs, shape, grid)).astype(np.float32)  # 2 H W
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=shape[1],
        height=shape[0],
        count=2,
        dtype="float32",
        crs=crs,
        transform=transform,
        tiled=True,
        blockxsize=16,
        blockysize=16,
    ) as dataset:
        dataset.write(planes)
    reader = GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01")
    reader.check()
    frames = reader.read(grid)[0]
    assert frames.valid.all()
    true = np.stack(np.meshgrid(10 * np.arange(grid.cells) + 5, 10 * np.arange(grid.cells) + 5))
    assert np.abs(frames.array[0] - true).max() < 0.5 * max(metres, 10)
    whole, seen = resample(
        planes[None], np.ones((1, *shape), bool), Georeference(transform, crs), grid
    )
    np.testing.assert_allclose(
        frames.array, whole, atol=1e-3
    )  # metres: a window's corner is rounded on its own
    np.testing.assert_array_equal(frames.valid, seen)
    window = Place("sar", Georeference(transform, crs), shape).window(grid)
    side = 10 * grid.cells
    x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(
        grid.x0 + np.array([0, side, side, 0]), grid.y0 - np.array([0, 0, side, side])
    )
    assert (
        window.shape[0] <= np.ptp(y) / -transform.e + 6
        and window.shape[1] <= np.ptp(x) / transform.a + 6
    )


@FEW
@given(scenes(), st.floats(-1, 1), st.floats(-1, 1))
def test_a_source_over_a_part_gives_just_that_part(scene, east, south):
    transform, crs, shape, grid, metres = scene
    moved = Grid(
        grid.crs, round(grid.x0 + east * 500, 1), round(grid.y0 - south * 500, 1), grid.cells
    )
    window = window_of(Georeference(transform, crs), shape, moved)
    at = np.stack(np.meshgrid(10 * np.arange(moved.cells) + 5, 10 * np.arange(moved.cells) + 5))
    x, y = Transformer.from_crs(grid.crs, crs, always_xy=True).transform(
        moved.x0 + at[0], moved.y0 - at[1]
    )
    column, row = (
        (x - transform.c) / transform.a,
        (y - transform.f) / transform.e,
    )  # of the cells' centres
    edge = (
        np.minimum(np.minimum(column, shape[1] - column), np.minimum(row, shape[0] - row)) * metres
    )
    if window is None:
        assert edge.max() < 10
        return
    array = np.ones((1, 1, *window.shape), np.float32)
    _, seen = resample(array, np.ones((1, *window.shape), bool), window.georeference, moved)
    far = 10 + metres  # a cell is in doubt only next to the edge
    assert seen[0][edge > far].all() and not seen[0][edge < -far].any()


def test_aligned_pixels_keep_their_bits_where_the_source_ends():
    crs = CRS.from_epsg(32632)
    array = np.random.default_rng(0).normal(size=(1, 2, 5, 6)).astype(np.float32)
    for x0, y0 in (
        (500_030, 5_000_000),
        (499_980, 5_000_020),
        (500_010, 4_999_980),
        (499_990, 5_000_010),
    ):
        found, seen = resample(
            array,
            np.ones((1, 5, 6), bool),
            Georeference(Affine(10, 0, 500_000, 0, -10, 5_000_000), crs),
            Grid(crs, x0, y0, 4),
        )
        for row in range(4):
            for column in range(4):
                r, c = row + (5_000_000 - y0) // 10, column + (x0 - 500_000) // 10
                assert seen[0, row, column] == (0 <= r < 5 and 0 <= c < 6)
                expected = array[0, :, r, c] if seen[0, row, column] else 0
                np.testing.assert_array_equal(found[0, :, row, column], expected)


@pytest.mark.parametrize(
    "lon, lat", [(32.59, 0.35), (-70.6, -33.4), (8.999, 48.2), (9.0, 70.0), (179.99, -45.0)]
)
def test_a_centre_is_the_middle_of_its_grid(lon, lat):
    grid = grid_at(lon, lat, cells=64)
    assert grid.x0 % 10 == 0 and grid.y0 % 10 == 0 and grid.cells == 64
    assert grid.crs.to_epsg() == (32600 if lat >= 0 else 32700) + int((lon + 180) // 6) + 1
    _, _, metres = Geod(ellps="WGS84").inv(lon, lat, *grid.centre)
    assert metres < 7.1  # at most 5 m on each axis


@given(
    st.integers(20_000, 80_000),
    st.integers(1, 1_000_000),
    st.integers(1, 80),
    st.integers(1, 80),
    st.floats(-0.4, 0.4),
)
def test_a_footprint_is_enclosed_by_the_smallest_square(left, bottom, wide, high, off):
    box = (10 * left + off, 10 * bottom + off, 10 * (left + wide) + off, 10 * (bottom + high) + off)
    grid = grid_over(BoundingBox(*box), Lattice(CRS.from_epsg(32632)))
    assert (
        grid.cells == max(wide, high) and grid.x0 % 10 == 0 and grid.y0 % 10 == 0
    )  # within half a metre: the same
    side = 10 * grid.cells
    assert grid.x0 <= box[0] + 0.5 and grid.x0 + side >= box[2] - 0.5
    assert grid.y0 >= box[3] - 0.5 and grid.y0 - side <= box[1] + 0.5


def test_a_footprint_in_degrees_gives_back_the_patch_that_it_outlines():
    corners = [
        (501_360, 5_629_680),
        (502_000, 5_629_680),
        (502_000, 5_629_040),
        (501_360, 5_629_040),
    ]
    back = Transformer.from_crs(32631, 4326, always_xy=True)
    ring = [
        [round(value, 6) for value in back.transform(*corner)] for corner in [*corners, corners[0]]
    ]
    spot = footprint({"type": "Polygon", "coordinates": [ring]}, "here")
    assert spot.grid() == Grid(CRS.from_epsg(32631), 501_360.0, 5_629_680.0, 64)
    spot = footprint(
        {"bounds": [501_360, 5_629_040, 502_000, 5_629_680], "crs": "EPSG:32631"}, "here"
    )
    assert spot.grid() == Grid(CRS.from_epsg(32631), 501_360.0, 5_629_680.0, 64)


@pytest.mark.parametrize(
    "crs, corner", [("EPSG:4326", (500_000, 5_400_000)), ("EPSG:32632", (5e9, 5e12))]
)
def test_coordinates_that_are_not_of_their_crs_are_told(tmp_path, crs, corner):
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=64,
        height=64,
        count=2,
        dtype="float32",
        crs=crs,
        transform=Affine(10, 0, corner[0], 0, -10, corner[1]),
    ) as dataset:
        dataset.write(np.full((2, 64, 64), -9, np.float32))
    reader = GeoTiffImage(tmp_path / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01")
    with pytest.raises(InputError, match="'a': a.tif: its corners .* are nowhere in its CRS"):
        build_tile(Entry("a", (reader,), "", ""))


def test_a_source_elsewhere_is_left_out_with_a_line(tmp_path):
    paths = [tmp_path / "here.tif", tmp_path / "there.tif"]
    for path, x in zip(paths, (500_000, 700_000)):
        with rasterio.open(
            path,
            "w",
            driver="GTiff",
            width=64,
            height=64,
            count=2,
            dtype="float32",
            crs="EPSG:32632",
            transform=Affine(10, 0, x, 0, -10, 5_400_000),
        ) as dataset:
            dataset.write(
                np.stack([np.full((64, 64), -10.0), np.full((64, 64), -17.0)]).astype(np.float32)
            )
    readers = tuple(
        GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01") for path in paths
    )
    lon, lat = Transformer.from_crs(32632, 4326, always_xy=True).transform(500_320, 5_399_680)
    tile, notes = build_tile(Entry("a", readers, "", "", Centre(lon, lat, 32)))
    assert notes == ["sources[1] there.tif: left out, has nothing over the tile"]
    assert (
        tile.arrays["sar"].shape == (1, 2, 32, 32)
        and tile.valid["sar"].all()
        and "there" not in tile.source
    )
    tile, notes = build_tile(Entry("a", readers, "", "", Centre(30.0, 10.0, 32)))
    assert tile is None and len(notes) == 3 and "no usable modality left" in notes[2]
