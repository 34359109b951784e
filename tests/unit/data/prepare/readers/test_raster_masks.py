"""Which pixels of a raster are observations: nodata, masks, opacity, NaN."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.features import rasterize
from shapely import box

from data.errors import InputError
from data.prepare.place.georeference import Georeference
from data.prepare.place.grid import grid_inside
from data.prepare.place.specks import fill_specks
from data.prepare.readers.raster_labels import GeoTiffLabels
from tests.unit.data.prepare.readers.rasters import (
    CELLS,
    GRID,
    LEFT,
    MS,
    SAR,
    TOP,
    flat,
    frame,
    image,
    write,
)

SIDE = 32 * CELLS  # pixels of a picture
PIXEL = 0.3125
RGBA = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
HOLE = (slice(40, 70), slice(0, 90))  # rows, columns: larger than a speck


def picture(count=3, value=90):
    array = flat(count, "uint8", value, size=SIDE)
    array[:, *HOLE] = 0
    return array


def hole():
    """The mask of a picture with nothing in ``HOLE``."""
    valid = np.ones((SIDE, SIDE), bool)
    valid[HOLE] = False
    return valid


def test_one_black_band_is_no_hole_in_a_picture(tmp_path):
    array = picture()
    array[1, 80:, :] = 0  # red and blue roofs
    path = write(tmp_path / "a.tif", array, PIXEL, nodata=0)
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.dataset_mask() > 0, hole())
    np.testing.assert_array_equal(frame(path, "RGB", "hr")[1], hole())
    path = write(tmp_path / "b.tif", array, PIXEL)
    assert frame(path, "RGB", "hr")[1].all()
    np.testing.assert_array_equal(frame(path, "RGB", "hr", nodata=0)[1], hole())


@pytest.mark.parametrize(
    ("modality", "bands", "nodata", "missing"),
    [("ms", MS, 0, 0), ("ms", MS, 65535, 65535), ("sar", SAR, -9999.0, -9999.0)],
)
def test_one_missing_band_is_a_hole_elsewhere(tmp_path, modality, bands, nodata, missing):
    dtype = {"ms": "uint16", "sar": "float32"}[modality]
    array = flat(len(bands), dtype, 1500 if modality == "ms" else -12)
    array[1, 2, 3] = missing
    path = write(tmp_path / "a.tif", array, nodata=nodata)
    valid = frame(path, bands, modality)[1]
    assert not valid[2, 3] and valid.sum() == CELLS**2 - 1


def test_numbers_that_no_ground_has_are_missing(tmp_path):
    array = flat(10)
    array[3, 0, 0] = 65535  # saturated
    assert frame(write(tmp_path / "a.tif", array), MS)[1].sum() == CELLS**2 - 1
    array = flat(10, "float32", 0.1)
    array[0, 0] = [9.96921e36, -9999, -0.3, -0.1]
    values, valid = frame(write(tmp_path / "b.tif", array), MS, scale=1)
    assert valid[0].tolist() == [False, False, False, True] and values[0, 0, 3] == 1


def test_the_nodata_of_a_whole_file(tmp_path):
    """One number for each band, as GDAL keeps it among the tags."""
    array = flat(3, "uint8", 90, size=SIDE)
    array[:, *HOLE] = np.array([255, 0, 255])[:, None, None]
    array[0, 100:, :] = 255
    path = write(tmp_path / "a.tif", array, PIXEL, text={"NODATA_VALUES": "255 0 255"})
    np.testing.assert_array_equal(frame(path, "RGB", "hr")[1], hole())


def test_zero_is_a_number_where_another_one_means_nothing(tmp_path):
    """Harmonised Landsat and Sentinel-2 has -9999, and zero over dark water."""
    array = flat(10, "int16")
    array[3, 0, 0] = 0
    array[4, 0, 1] = -40
    array[5, 0, 2] = -9999
    array[:, 0, 3] = 0  # no ground is black in ten bands
    values, valid = frame(write(tmp_path / "a.tif", array, nodata=-9999), MS)
    assert valid[0].tolist() == [True, True, False, False] and valid[1:].all()
    assert values[3, 0, 0] == 1 and values[4, 0, 1] == 1
    valid = frame(write(tmp_path / "b.tif", array), MS)[1]
    assert valid[0].tolist() == [False, True, False, False]


def test_each_band_has_a_nodata_of_its_own(tmp_path):
    """As virtual rasters have it, which join files of several makers."""
    array = flat(2, "float32", -12)
    array[0, 0, 0] = -9999
    array[1, 0, 1] = 0
    array[0, 0, 2] = 0  # a number of the first band
    bands = ""
    write(tmp_path / "a.tif", array)
    for number, nodata in ((1, -9999), (2, 0)):
        bands += (
            f'<VRTRasterBand dataType="Float32" band="{number}"><NoDataValue>{nodata}'
            f'</NoDataValue><SimpleSource><SourceFilename relativeToVRT="1">a.tif'
            f"</SourceFilename><SourceBand>{number}</SourceBand></SimpleSource></VRTRasterBand>"
        )
    path = tmp_path / "a.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{CELLS}" rasterYSize="{CELLS}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>{LEFT},10,0,{TOP},0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    assert frame(path, SAR, "sar")[1][0].tolist() == [False, False, True, True]


@pytest.mark.parametrize("internal", [True, False])
def test_masks_inside_and_beside_the_file(tmp_path, internal):
    array = picture()
    array[:, *HOLE] = 33
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write(tmp_path / "a.tif", array, PIXEL, mask=hole().astype(np.uint8) * 255)
    assert (tmp_path / "a.tif.msk").exists() != internal
    np.testing.assert_array_equal(frame(path, "RGB", "hr")[1], hole())
    values = flat(2, "float32", -12)
    values[1, 3, 3] = -9999
    mask = np.full((CELLS, CELLS), 255, np.uint8)
    mask[0, 0] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=internal):
        path = write(tmp_path / "b.tif", values, mask=mask, nodata=-9999)
    valid = frame(path, SAR, "sar")[1]
    assert not valid[0, 0] and not valid[3, 3] and valid.sum() == CELLS**2 - 2


@pytest.mark.parametrize("full", [1, 255])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_opacity_masks_by_its_mark_its_name_or_the_key(tmp_path, full, dtype):
    array = np.concatenate([picture(), hole()[None] * full]).astype(dtype)
    marked = write(tmp_path / "marked.tif", array, PIXEL, colours=RGBA)
    plain = write(tmp_path / "plain.tif", array, PIXEL, photometric="minisblack", alpha="no")
    named = write(tmp_path / "named.tif", array, PIXEL, names=["Red", "Green", "Blue", "alpha"])
    numbers = {} if dtype == "uint8" else {"scale": 1.0}
    for path, bands, keys, masks in (
        (marked, ["R", "G", "B", "A"], {}, True),
        (marked, ["R", "G", "B"], {}, True),
        (marked, ["1", "2", "3"], {}, True),
        (marked, ["R", "G", "B", "x"], {"alpha": "mask"}, True),
        (marked, ["R", "G", "B"], {"alpha": "ignore"}, False),
        (marked, ["R", "G", "B", "NIR"], {}, False),
        (plain, ["R", "G", "B", "alpha"], {}, True),
        (plain, ["R", "G", "B", "NIR"], {}, False),
        (named, ["red", "green", "blue"], {}, True),
    ):
        valid = frame(path, bands, "hr", **numbers, **keys)[1]
        np.testing.assert_array_equal(valid, hole() | (not masks), f"{path.name} {bands} {keys}")


def test_a_fourth_band_that_gdal_marks_is_data_when_it_is_named(tmp_path):
    array = picture(4)
    for band in range(4):
        array[band] = 50 + band
    path = write(tmp_path / "a.tif", array, PIXEL, colours=RGBA)
    values, valid = frame(path, ["NIR", "R", "G", "B"], "hr")
    assert values[:, 0, 0].tolist() == [51, 52, 53] and valid.all()
    with pytest.raises(InputError, match="band 4 is marked as opacity, and the manifest names it"):
        image(path, ["NIR", "R", "G", "B"], "hr", alpha="mask")
    with pytest.raises(InputError, match="alpha 'mask': no band is marked as opacity"):
        image(write(tmp_path / "b.tif", picture(), PIXEL), "RGB", "hr", alpha="mask")
    array[3] = np.arange(SIDE) * 2 % 256
    path = write(tmp_path / "c.tif", array, PIXEL, colours=RGBA)
    with pytest.raises(InputError, match="c.tif: band 4 is marked as opacity, but 8.% of"):
        frame(path, "RGB", "hr")


def test_lossy_opacity(tmp_path):
    """JPEG moves 0 and 255 a little, on both sides of an edge."""
    array = np.concatenate([picture(), hole()[None] * 255]).astype(np.uint8)
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 9, (SIDE, SIDE))
    array[3] = np.where(hole(), 255 - noise, noise)
    path = write(tmp_path / "a.tif", array, PIXEL, colours=RGBA)
    np.testing.assert_array_equal(frame(path, "RGB", "hr")[1], hole())


@pytest.mark.parametrize(("dtype", "full"), [("uint8", 255), ("uint16", 255), ("uint16", 65535)])
def test_what_is_less_than_half_opaque_is_hidden_everywhere(tmp_path, dtype, full):
    """Also in a tile at the edge of a scene, where nothing is opaque."""
    array = np.concatenate([picture(value=90), hole()[None]]).astype(dtype)
    path = tmp_path / "a.tif"
    for share, opaque in ((0.4, False), (0.6, True)):
        array[3] = int(share * full)
        write(path, array, PIXEL, colours=RGBA)
        valid = frame(path, "RGB", "hr", scale=1.0, alpha="mask")[1]
        assert (valid == opaque).all(), share


def test_numbers_that_are_none(tmp_path):
    values = flat(2, "float32", -12)
    values[1, 0, 0] = np.nan
    values[0, 0, 1] = np.inf
    assert frame(write(tmp_path / "a.tif", values), SAR, "sar")[1][0].tolist() == [
        False,
        False,
        True,
        True,
    ]
    numbers = flat(3, "float32", 0.5, size=SIDE)
    numbers[1, 5, 7] = np.nan  # nothing can be put in its place
    values, valid = frame(write(tmp_path / "b.tif", numbers, PIXEL), "RGB", "hr", scale=255)
    assert (~valid).sum() == 1 and not valid[5, 7] and (values[:, valid] == 128).all()


def test_specks_in_a_picture_close_and_gaps_stay(tmp_path):
    array = picture()
    array[:, 100:110, 60:70] = 0  # a shadow
    array[:, 120:, :30] = 0  # leaves the picture: part of a larger gap
    expected = hole()
    expected[120:, :30] = False
    path = write(tmp_path / "a.tif", array, PIXEL, nodata=0)
    np.testing.assert_array_equal(frame(path, "RGB", "hr")[1], expected)


def test_a_speck_is_smaller_than_a_cell(tmp_path):
    """Eleven pixels of 3 m are a cell; sixteen are a gap."""
    array = flat(3, "uint8", 90, size=14)
    array[:, 2, 2:5] = 0
    array[:, 7:11, 7:11] = 0
    path = write(tmp_path / "a.tif", array, 3.0, nodata=0)
    valid = frame(path, "RGB", "hr")[1]
    metres = (np.arange(SIDE) + 0.5) * PIXEL
    inside = (metres > 21) & (metres < 33)
    assert not valid[np.ix_(inside, inside)].any()
    assert valid[:50].all()


def test_a_cell_is_measured_on_the_ground(tmp_path):
    """A hole of 20 pixels in degrees, of about 0.3 m and of about 3 m."""
    for side, closes in ((3e-6, True), (3e-5, False)):
        array = flat(3, "uint8", 90, size=200)
        array[:, 90:110, 99:100] = 0
        corner = Affine(side, 0, 4.0, 0, -side, 51.0)
        path = write(tmp_path / "a.tif", array, nodata=0, crs="EPSG:4326", transform=corner)
        grid = grid_inside(Georeference(corner, CRS.from_epsg(4326)), (200, 200))
        assert frame(path, "RGB", "hr", grid=grid)[1].all() == closes


def test_labels_under_a_mask_are_none(tmp_path):
    codes = np.full((1, CELLS, CELLS), 1, np.float64)
    codes[0, 1, 1] = np.nan
    mask = np.full((CELLS, CELLS), 255, np.uint8)
    mask[0, 0] = 0
    reader = GeoTiffLabels(write(tmp_path / "a.tif", codes, mask=mask), {"1": "water"})
    reader.check()
    labels = reader.read(GRID)[0].classes
    assert labels[0, 0] == labels[1, 1] == 255 and (labels < 255).sum() == CELLS**2 - 2


def test_holes_by_their_size():
    rng = np.random.default_rng(0)
    opaque = np.ones((120, 120), bool)
    sizes = {}
    for i, (row, column) in enumerate((r, c) for r in (10, 50, 90) for c in (10, 50, 90)):
        height, width = rng.integers(1, 26, 2)
        shape = box(column, row, column + width, row + height)
        opaque[rasterize([shape], opaque.shape) > 0] = False
        sizes[i] = (row, column, height * width)
    closed = fill_specks(opaque, least=150)
    for row, column, size in sizes.values():
        assert closed[row, column] == (size < 150)
    edge = np.ones((40, 40), bool)
    edge[:3, :3] = False
    assert not fill_specks(edge)[0, 0] and fill_specks(edge, beyond=True).all()


def test_codes_of_a_mask_that_are_none_hide_their_pixels(tmp_path):
    scene = write(tmp_path / "a.tif", flat(10))
    codes = np.full((1, CELLS, CELLS), 4, np.float32)
    codes[0, 0] = [np.nan, 255, 9, 0]
    codes[0, 1] = [4, 8.6, 8.999, 5]  # an interpolated mask has no codes there
    keys = {"mask": write(tmp_path / "m.tif", codes, nodata=255), "masked": (9,)}
    valid = frame(scene, MS, **keys)[1]
    assert valid[0].tolist() == [False, False, False, True]
    assert valid[1].tolist() == [True, False, False, True]
    half = write(tmp_path / "half.tif", np.full((1, 2, CELLS), 4, np.uint8))
    assert frame(scene, MS, mask=half, masked=(9,))[1].sum() == 2 * CELLS
    with pytest.raises(InputError, match="two.tif: expected one band of codes, found 2 of uint8"):
        image(scene, MS, mask=write(tmp_path / "two.tif", flat(2, "uint8", 4)), masked=(9,))


def test_a_fill_value_is_never_closed(tmp_path):
    array = np.full((3, SIDE, SIDE), 1500, np.int16)
    array[:, 9, 9] = -9999
    array[:, 50, 50] = 0
    path = write(tmp_path / "a.tif", array, PIXEL, nodata=-9999)
    values, valid = frame(path, "RGB", "hr", scale=0.1)
    assert np.argwhere(~valid).tolist() == [[9, 9]] and values[0, 50, 50] == 0
