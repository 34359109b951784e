"""Rasters that say in another way where they lie, or hold something else than one image."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from PIL import Image
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC

from data.errors import InputError
from data.prepare.readers.geotiff import GeoTiffBands
from data.prepare.readers.raster_labels import GeoTiffLabels
from tests.unit.data.prepare.readers.rasters import (
    GRID,
    LEFT,
    MS,
    SAR,
    TOP,
    UTM,
    flat,
    frame,
    image,
    write,
)

NOWHERE = {"crs": None, "transform": Affine.identity()}
CORNERS = [(0, 0, 9.0, 48.0), (0, 4, 9.1, 48.0), (4, 0, 9.0, 47.9), (4, 4, 9.1, 47.9)]


def polynomials() -> RPC:
    """A model of a camera with all coefficients equal."""
    ones = [1.0] * 20
    return RPC(
        height_off=0, height_scale=1, lat_off=0, lat_scale=1, line_den_coeff=ones,
        line_num_coeff=ones, line_off=0, line_scale=1, long_off=0, long_scale=1,
        samp_den_coeff=ones, samp_num_coeff=ones, samp_off=0, samp_scale=1,
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_points_and_polynomials_instead_of_a_transform(tmp_path):
    points = [GroundControlPoint(*corner) for corner in CORNERS]
    path = tmp_path / "grd.tif"
    profile = {"driver": "GTiff", "count": 2, "height": 4, "width": 4, "dtype": "float32"}
    with rasterio.open(path, "w", gcps=points, crs="EPSG:4326", **profile) as file:
        file.write(flat(2, "float32", -12))
    with pytest.raises(InputError, match="grd.tif: .*found 4 ground control points; warp the file"):
        image(path, SAR, "sar")
    path = tmp_path / "rpc.tif"
    with rasterio.open(path, "w", rpcs=polynomials(), **profile) as file:
        file.write(flat(2, "float32", -12))
    with pytest.raises(InputError, match="rpc.tif: .*found rational polynomials .RPC.; warp"):
        image(path, SAR, "sar")
    path = write(tmp_path / "none.tif", flat(2, "float32", -12), **NOWHERE)
    with pytest.raises(InputError, match="none.tif: expected a projected or geographic CRS"):
        image(path, SAR, "sar")


def test_turned_pixels(tmp_path):
    turned = Affine.translation(600_000, 5_700_000) @ Affine.rotation(20) @ Affine.scale(10, -10)
    path = write(tmp_path / "a.tif", flat(2, "float32", -12), transform=turned)
    with pytest.raises(InputError, match="a.tif: .*found the transform .*warp it first"):
        image(path, SAR, "sar")


def test_heights_in_a_crs_are_no_unit_of_the_bands(tmp_path):
    """GDAL says "metre" of all bands then; the pixels lie where they would without them."""
    path = write(tmp_path / "a.tif", flat(10), crs=CRS.from_user_input("EPSG:32631+5773"))
    with rasterio.open(path) as file:
        assert set(file.units) == {"metre"}
    reader = image(path, MS)
    assert reader.place().georeference.crs == UTM
    assert (reader.read(GRID)[0].array == 1500).all()
    write(tmp_path / "b.tif", flat(10), units=["metre"] * 10)
    with pytest.raises(InputError, match="the file's unit is 'metre'"):
        image(tmp_path / "b.tif", MS)


def test_a_turn_by_rounding_is_none(tmp_path):
    numbers = flat(2, "float32", -12) - np.arange(4, dtype="float32")
    turned = Affine(10, 1e-7, LEFT, -1e-7, -10, TOP)
    path = write(tmp_path / "a.tif", numbers, transform=turned)
    np.testing.assert_array_equal(frame(path, SAR, "sar")[0], numbers)  # bit for bit
    turned = Affine(10, 0.1, LEFT, -0.1, -10, TOP)
    with pytest.raises(InputError, match="found the transform"):
        image(write(tmp_path / "b.tif", numbers, transform=turned), SAR, "sar")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_pages(tmp_path):
    pages = [Image.fromarray(np.full((8, 8), page, np.uint8)) for page in range(3)]
    pages[0].save(tmp_path / "pages.tif", save_all=True, append_images=pages[1:])
    message = "pages.tif: expected one image, found 3; split the file first"
    with pytest.raises(InputError, match=message):
        image(tmp_path / "pages.tif", "RGB", "hr")
    with pytest.raises(InputError, match=message):
        GeoTiffLabels(tmp_path / "pages.tif", "flair").check()


def test_codes_of_a_palette_are_no_picture(tmp_path):
    path = write(tmp_path / "a.tif", flat(1, "uint8", 1), photometric="palette")
    with rasterio.open(path, "r+") as file:
        file.write_colormap(1, {1: (200, 100, 50, 255)})
    message = "a.tif: expected numbers, found the codes of a palette"
    with pytest.raises(InputError, match=message):
        image(path, "RGB", "hr")
    with pytest.raises(InputError, match=message):
        GeoTiffBands(dict.fromkeys("RGB", path), modality="hr", date="2023-05-20").check()


def test_a_picture_in_which_0_is_white_is_refused(tmp_path):
    path = write(tmp_path / "a.tif", flat(1, "uint8", 30), photometric="miniswhite")
    with pytest.raises(InputError, match="a.tif: expected larger .* whose 0 is white"):
        GeoTiffBands(dict.fromkeys("RGB", path), modality="hr", date="2023-05-20").check()


def test_marked_colours_must_agree(tmp_path):
    """Unless they are red, green and blue, which GDAL writes for any bands."""
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red]
    path = write(tmp_path / "a.tif", flat(3, "uint8", 90), colours=colours)
    image(path, "BGR", "hr")
    with pytest.raises(InputError, match="the file calls band 1 'blue', the manifest 'R'"):
        image(path, "RGB", "hr")
    image(write(tmp_path / "b.tif", flat(3, "uint8", 90), colours=colours[::-1]), "BGR", "hr")
