"""Label rasters and their tables."""

import numpy as np
import pytest

from data.errors import InputError
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.tiles.classes import INDEX
from tests.unit.data.prepare.readers.scene import GRID, SCENE, write


def test_a_land_cover_raster_with_a_table_of_its_own(tmp_path):
    codes = np.zeros((1, SCENE, SCENE), np.uint16)
    codes[0, 12:20], codes[0, 20:24] = 3110, 5120
    path = write(tmp_path / "cover.tif", codes)
    reader = GeoTiffLabels(path, {"3110": "deciduous forest", "5120": "water"})
    reader.check()
    drawn = reader.read(GRID)[0].draw(GRID)
    assert (drawn[:64] == INDEX["deciduous forest"]).all() and (
        drawn[64:96] == INDEX["water"]
    ).all()
    assert (drawn[96:] == 255).all()
    faults = GeoTiffLabels(path, {"1": "vinyard", "one": "water"}).check_keys()
    assert "code 1: no class 'vinyard' (did you mean 'vineyard'?)" in faults[0]
    assert "code 'one': expected a whole number" in faults[1] and len(faults) == 2
    (fault,) = GeoTiffLabels(path, "corine").check_keys()
    assert fault.startswith("legend 'corine': expected one of")


def test_a_code_that_means_no_observation_is_no_class(tmp_path):
    codes = np.full((1, SCENE, SCENE), 1, np.uint8)
    legend = {"0": "grassland", "1": "water"}
    path = write(tmp_path / "a.tif", codes, nodata=1)
    with pytest.raises(InputError, match=r"a.tif: nodata 1 of the file is 'water' in the legend"):
        GeoTiffLabels(path, legend).check()
    for nodata in (0, 255):
        reader = GeoTiffLabels(write(tmp_path / "b.tif", codes, nodata=nodata), legend)
        reader.check()
        assert (reader.read(GRID)[0].draw(GRID) == INDEX["water"]).all()
    for nodata in (np.nan, np.inf, 1.5):
        path = write(tmp_path / "c.tif", codes.astype(np.float32), nodata=nodata)
        GeoTiffLabels(path, legend).check()
