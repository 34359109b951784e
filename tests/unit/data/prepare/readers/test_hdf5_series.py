"""A series without georeference in HDF5, against numbers that the test writes itself."""

import h5py
import numpy as np
import pytest
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.place.grid import Grid
from data.prepare.readers.hdf5_series import Hdf5Series, sensing_time

N = 4
GRID = Grid(CRS.from_epsg(32632), 600_000.0, 5_400_000.0, N)


@pytest.fixture
def path(tmp_path):
    """Two optical frames of reflectance 0.1 without clouds, one SAR frame of each orbit."""
    path = tmp_path / "series.h5"
    with h5py.File(path, "w") as file:
        file["sen-2-data"] = np.full((2, 10, N, N), 1000.0, np.float32)
        file["sen-2-masks"] = np.zeros((2, 2, N, N), np.float32)
        file["sen-2-products"] = ["S2A_MSIL2A_20200502T103021_x", "S2A_MSIL2A_20200501T103021_x"]
        for orbit, day in (("asc", 3), ("des", 4)):
            file[f"sen-1-{orbit}-data"] = np.full((1, 2, N, N), 0.01)
            file[f"sen-1-{orbit}-products"] = [f"S1A_IW_GRDH_1SDV_2020050{day}T053021_x"]
    return path


def change(path, name, index=None, value=None, **attributes):
    """Write some numbers of a dataset, and attributes."""
    with h5py.File(path, "a") as file:
        if index is not None:
            file[name][index] = value
        file[name].attrs.update(attributes)


def read(path):
    reader = Hdf5Series(path)
    reader.check()
    return reader.read(GRID)


def test_frames_are_in_time_order(path):
    change(path, "sen-2-data", 0, 500)
    optical, sar = read(path)
    assert optical.dates == ["2020-05-01", "2020-05-02"] and optical.valid.all()
    assert (optical.array[0] == 1000).all() and (optical.array[1] == 500).all()
    assert sar.dates == ["2020-05-03", "2020-05-04"]
    np.testing.assert_allclose(sar.array, -20.0, rtol=1e-6)


@pytest.mark.parametrize("spoilt", [np.nan, -1, -9999, 255, 100])
@pytest.mark.parametrize("layer", [0, 1])
def test_a_mask_without_a_share_is_not_clear(path, spoilt, layer):
    change(path, "sen-2-masks", (1, layer, 0), spoilt)
    optical, _ = read(path)
    assert not optical.valid[0, 0].any() and optical.valid[0, 1:].all() and optical.valid[1].all()


@pytest.mark.parametrize("spoilt, attributes", [(np.nan, {}), (np.inf, {}), (7, {"_FillValue": 7})])
def test_numbers_of_no_observation(path, spoilt, attributes):
    change(path, "sen-2-data", (1, 3, 0), spoilt, **attributes)
    change(path, "sen-1-asc-data", (0, 1, 0), spoilt, **attributes)
    optical, sar = read(path)
    assert not optical.valid[0, 0].any() and optical.valid[0, 1:].all()
    assert not sar.valid[0, 0].any() and sar.valid[0, 1:].all()


def test_scale_and_offset_of_the_file(path):
    change(path, "sen-2-data", scale_factor=1e-4, add_offset=-0.01)
    change(path, "sen-1-des-data", scale_factor=0.1)
    optical, sar = read(path)
    assert (optical.array == 900).all()
    np.testing.assert_allclose(sar.array[1], -30.0, rtol=1e-6)


@pytest.mark.parametrize(
    "name, attributes, words",
    [
        ("sen-2-data", {"scale_factor": "?"}, "sen-2-data: attribute scale_factor"),
        ("sen-2-data", {"add_offset": -1000.0}, "add_offset -1000 without scale_factor"),
        ("sen-2-masks", {"valid_range": [1, 2, 3]}, "sen-2-masks: attribute valid_range"),
    ],
)
def test_attributes_that_cannot_be_honoured_are_named(path, name, attributes, words):
    change(path, name, **attributes)
    with pytest.raises(InputError, match=words):
        Hdf5Series(path).check()


def test_masks_of_another_size_are_named(path):
    with h5py.File(path, "a") as file:
        del file["sen-2-masks"]
        file["sen-2-masks"] = np.zeros((2, 2, N, N + 1))
    with pytest.raises(InputError, match=r"sen-2-masks: expected 2 x \(snow, cloud\) x 4 x 4"):
        Hdf5Series(path).check()


def test_no_frames_at_all(path):
    with h5py.File(path, "a") as file:
        for name in list(file):
            empty = file[name][:0]
            del file[name]
            file[name] = empty
    assert [item.text for item in read(path)] == ["ms has no frames", "sar has no frames"]


@pytest.mark.parametrize("product", [b"S2A_20201301T103021", "no time", 20200501, b"\xff\xfe"])
def test_products_without_a_time_are_named(path, product):
    with pytest.raises(InputError, match=r"series\.h5: expected a Sentinel product name"):
        sensing_time(product, path)
