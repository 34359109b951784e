"""Mosaics of map tiles, and how tiles are put together from several sources."""

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import pytest
from affine import Affine
from PIL import Image
from pyproj import Transformer
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.build import build_tile, draw_labels
from data.prepare.contract.files import Remote
from data.prepare.contract.source import Frames, Place
from data.prepare.manifest.entry import Entry
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import Grid, grid_inside
from data.prepare.place.specks import fill_specks
from data.prepare.place.spot import Centre
from data.prepare.readers.hdf5_series import Hdf5Series
from data.prepare.readers.raster_labels import RasterLabels
from data.prepare.readers.web_tiles import WebTiles, tile_transform
from tests.paths import SAMPLES

UTM32 = CRS.from_epsg(32632)


def make_tiles(folder, places, zoom=19):
    paths = []
    for x, y in places:
        pixels = np.zeros((256, 256, 4), np.uint8)
        pixels[..., 0], pixels[..., 1], pixels[..., 3] = x % 256, y % 256, 255
        paths.append(folder / f"t-{x}-{y}-{zoom}.png")
        Image.fromarray(pixels).save(paths[-1])
    return tuple(paths)


def test_corner_of_a_tile_by_the_web_map_formula():
    x, y, zoom = 309_612, 261_632, 19
    lon = x / 2**zoom * 360 - 180
    lat = np.degrees(np.arctan(np.sinh(np.pi * (1 - 2 * y / 2**zoom))))
    east, north = Transformer.from_crs(4326, 3857, always_xy=True).transform(lon, lat)
    corner = tile_transform(x, y, zoom=zoom)
    assert (corner.c, corner.f) == pytest.approx((east, north), abs=1e-5)
    assert corner.a == pytest.approx(0.29858, abs=1e-5) and corner.e == -corner.a


def test_what_is_less_than_half_opaque_is_no_observation(tmp_path):
    left, top = 309_612, 261_632
    (path,) = make_tiles(tmp_path, [(left, top)])
    pixels = np.array(Image.open(path))
    pixels[:, :128, 3] = 100
    pixels[:, 128:, 3] = 150
    Image.fromarray(pixels).save(path)
    reader = WebTiles((path,), "2020-01-01")
    place = reader.place()
    (frames,) = reader.read(grid_inside(place.georeference, place.shape))
    middle = frames.valid.shape[-1] // 2
    cell = 32  # pixels: the grid lies on whole cells, and not around the tile's middle
    assert not frames.valid[0, :, : middle - cell].any()
    assert frames.valid[0, :, middle + cell :].all()


def test_an_image_of_16_bits_is_refused(tmp_path):
    """Cut off at 255, a dark one would pass for a picture with white roofs."""
    (path,) = make_tiles(tmp_path, [(309_612, 261_632)])
    Image.fromarray(np.full((256, 256), 200, np.uint16)).save(path)
    with pytest.raises(InputError, match=r"19.png: expected an image of bytes, found .* \(I;16\)"):
        WebTiles((path,), "2020-01-01").check()


def test_neighbours_are_put_in_their_places(tmp_path):
    left, top = 309_612, 261_632
    reader = WebTiles(
        make_tiles(tmp_path, [(left + 1, top), (left, top + 1), (left, top), (left + 1, top + 1)]),
        "2020-01-01",
    )
    reader.check()
    place = reader.place()
    transform = place.georeference.transform
    assert place.shape == (512, 512) and transform == tile_transform(left, top, zoom=19)
    grid = grid_inside(place.georeference, place.shape)
    frames = reader.read(grid)[0]
    side = 32 * grid.cells
    assert frames.array.shape == (1, 3, side, side) and frames.valid.all()
    columns, rows = np.meshgrid(np.arange(side), np.arange(side))
    x, y = Transformer.from_crs(grid.crs, 3857, always_xy=True).transform(
        grid.x0 + 0.3125 * (columns + 0.5), grid.y0 - 0.3125 * (rows + 0.5)
    )
    across = (x - transform.c) / transform.a / 256
    down = (y - transform.f) / transform.e / 256
    sure = (np.abs(across - 1) > 0.01) & (np.abs(down - 1) > 0.01)  # not on a seam
    np.testing.assert_array_equal(frames.array[0, 0][sure], (left + across.astype(int))[sure] % 256)
    np.testing.assert_array_equal(frames.array[0, 1][sure], (top + down.astype(int))[sure] % 256)


def test_only_tiles_near_the_grid_are_opened(tmp_path):
    reader = WebTiles(
        make_tiles(tmp_path, [(309_612 + i, 261_632) for i in range(12)]), "2020-01-01"
    )
    place = reader.place()
    first = grid_inside(place.georeference, (256, 256))
    whole = reader.read(first)[0]
    for path in reader.paths[4:]:
        path.unlink()  # the first tile, one that the margin may touch, and RING more stay
    near = reader.read(first)[0]
    np.testing.assert_array_equal(near.array, whole.array)
    np.testing.assert_array_equal(near.valid, whole.valid)


@pytest.mark.parametrize(
    "places, message",
    [
        ([(300, 200), (301, 201)], "missing or repeated x, y [(300, 201), (301, 200)]"),
    ],
)
def test_gaps_are_refused(tmp_path, places, message):
    (fault,) = WebTiles(make_tiles(tmp_path, places), "2020-01-01").check_keys()
    assert message in fault


def test_mixed_zoom_names_sizes_and_damage_are_refused(tmp_path):
    two = make_tiles(tmp_path, [(300, 200)]) + make_tiles(tmp_path, [(301, 200)], zoom=18)
    (fault,) = WebTiles(two, "2020-01-01").check_keys()
    assert "one zoom level" in fault
    (tmp_path / "photo.png").write_bytes(two[0].read_bytes())
    (fault,) = WebTiles((tmp_path / "photo.png",), "2020-01-01").check_keys()
    assert "x-y-z.png" in fault
    Image.new("RGB", (512, 512)).save(tmp_path / "t-1-1-19.png")
    with pytest.raises(InputError, match="256 x 256"):
        WebTiles((tmp_path / "t-1-1-19.png",), "2020-01-01").check()
    (tmp_path / "t-1-1-19.png").write_text("no")
    with pytest.raises(InputError, match="PNG"):
        WebTiles((tmp_path / "t-1-1-19.png",), "2020-01-01").check()


def test_small_holes_close_and_large_ones_stay():
    opaque = np.ones((100, 100), bool)
    opaque[10:15, 10:15] = False  # 25 pixels: a shadow
    opaque[40:70, 40:70] = False  # 900 pixels: a gap
    closed = fill_specks(opaque)
    assert (
        closed[10:15, 10:15].all()
        and not closed[40:70, 40:70].any()
        and closed.sum() == 100 * 100 - 900
    )


def test_a_later_label_source_lies_over_an_earlier_one():
    cover = np.full((4, 4), 7, np.uint8)
    detail = np.full((4, 4), 255, np.uint8)
    detail[1, 2] = 3
    place = Georeference(Affine(10, 0, 0, 0, -10, 0), UTM32)
    layers = [RasterLabels(codes, place, "") for codes in (cover, detail)]
    expected = cover.copy()
    expected[1, 2] = 3
    np.testing.assert_array_equal(
        draw_labels(layers, Grid(UTM32, 0, 0, 4), []), expected.repeat(8, 0).repeat(8, 1)
    )


@dataclass(frozen=True)
class Given:
    """A reader that gives what it was given, from a place of its own."""

    frames: Frames
    path: Remote

    def place(self):
        transform = Affine(0.3125, 0, 0, 0, -0.3125, 0)
        return Place("hr", Georeference(transform, UTM32), (128, 128))

    def read(self, grid):
        return [self.frames]


def aerial(value, date, share=1.0):
    valid = np.ones((1, 128, 128), bool)
    valid[:, :, int(128 * share) :] = False
    array = np.full((1, 3, 128, 128), value, np.uint8)
    frames = Frames(modality="hr", array=array, valid=valid, dates=[date], source="aerial")
    return Given(frames, Remote("given"))


def test_of_several_aerials_the_fullest_is_kept_with_a_line():
    tile, notes = build_tile(
        Entry("a", (aerial(1, "2019-01-01", 0.75), aerial(2, "2020-01-01")), "", "")
    )
    assert (tile.arrays["hr"] == 2).all() and tile.dates["hr"] == ["2020-01-01"]
    assert len(notes) == 1 and "2020-01-01 kept of 2" in notes[0]


def test_pixels_without_a_place_must_fit_the_grid():
    series = Hdf5Series(SAMPLES / "treesatai/sentinel/Abies_alba_1_1005_WEFL_NLF.h5")
    with pytest.raises(
        InputError, match=r"sen-2-data has no georeference.*expected the tile's \(4, 4\)"
    ):
        build_tile(Entry("a", (aerial(1, "2019-01-01"), series), "", ""))
    with pytest.raises(InputError, match="'a': no source says where"):
        build_tile(Entry("a", (series,), "", ""))
    tile, _ = build_tile(Entry("a", (series,), "", "", Centre(10.0, 50.0, 6)))
    assert tile.modalities == ["ms", "sar"] and tile.cells == 6


def test_hdf5_with_a_wrong_layout_is_refused(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["sen-2-data"] = np.zeros((2, 4, 6, 6), np.float32)
        file["sen-2-products"] = [b"x", b"y"]
    with pytest.raises(InputError, match="expected T x 10"):
        Hdf5Series(tmp_path / "a.h5").check()
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["sen-2-data"]
    with pytest.raises(InputError, match="expected the dataset 'sen-2-data'"):
        Hdf5Series(tmp_path / "a.h5").check()


def test_tiles_far_apart_are_told_in_a_short_line():
    def fault(*addresses) -> str:
        paths = tuple(Path(f"a-{x}-{y}-20.png") for x, y in addresses)
        (line,) = WebTiles(paths, "2020-01-01").check_keys()
        return line

    assert "both sides of the 180th meridian" in fault((0, 5), (2**20 - 1, 5))
    assert len(fault((0, 0), (100_000, 100_000))) < 300
