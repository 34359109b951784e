"""Label rasters and their tables."""

import numpy as np

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
