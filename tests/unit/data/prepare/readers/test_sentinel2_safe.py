"""Level-2A products, written by GDAL with numbers of a formula, read back onto a grid."""

from pathlib import Path

import numpy as np
import pytest

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.manifest.entry import Entry
from data.prepare.readers.sentinel2_safe import Sentinel2Safe
from tests.unit.data.prepare.readers.scene import (
    BANDS,
    FINE,
    GRID,
    LEFT,
    SCENE,
    TOP,
    clear,
    clouds,
    expected,
    numbers,
    write,
)


def make_safe(folder: Path, baseline: str, offset: int | None) -> Path:
    """A Level-2A product of one granule with lossless JPEG 2000 images."""
    safe = folder / "S2A_MSIL2A_20230611T103021_N0509_R108_T32UPU_20230611T150000.SAFE"
    images = safe / "GRANULE/L2A_T32UPU_A041623_20230611T103023/IMG_DATA"
    for band in BANDS:
        size = "10m" if band in FINE else "20m"
        raw = numbers(band, SCENE if band in FINE else SCENE // 2)[None].astype(int) - (offset or 0)
        write(
            images / f"R{size}/T32UPU_20230611T103021_{band}_{size}.jp2",
            raw.astype(np.uint16),
            "JP2OpenJPEG",
            QUALITY="100",
            REVERSIBLE="YES",
        )
    write(
        images / "R20m/T32UPU_20230611T103021_SCL_20m.jp2",
        clouds(),
        "JP2OpenJPEG",
        QUALITY="100",
        REVERSIBLE="YES",
    )
    offsets = ""
    if offset is not None:
        elements = [f'<BOA_ADD_OFFSET band_id="{i}">{offset}</BOA_ADD_OFFSET>' for i in range(13)]
        offsets = f"<BOA_ADD_OFFSET_VALUES_LIST>{''.join(elements)}</BOA_ADD_OFFSET_VALUES_LIST>"
    (safe / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/PSD/'
        'User_Product_Level-2A.xsd"><n1:General_Info><Product_Info>'
        "<PRODUCT_START_TIME>2023-06-11T10:30:21.024Z</PRODUCT_START_TIME>"
        f"<PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        "<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST>"
        '<BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>'
        f"</QUANTIFICATION_VALUES_LIST>{offsets}</Product_Image_Characteristics>"
        "</n1:General_Info></n1:Level-2A_User_Product>"
    )
    return safe


@pytest.mark.parametrize("baseline, offset", [("02.14", None), ("05.09", -1000)])
def test_a_safe_folder_has_one_scale_in_all_years(tmp_path, baseline, offset):
    reader = Sentinel2Safe(make_safe(tmp_path, baseline, offset))
    reader.check()
    assert reader.place().shape == (SCENE, SCENE) and reader.place().georeference.transform.a == 10
    frames = reader.read(GRID)[0]
    assert frames.dates == ["2023-06-11"] and frames.array.dtype == np.uint16
    for i, band in enumerate(BANDS):
        np.testing.assert_allclose(frames.array[0, i], expected(band), atol=0.51)
    np.testing.assert_array_equal(frames.valid[0], clear())
    tile, notes = build_tile(Entry("a", (reader,), "", ""))
    assert tile.cells == SCENE and tile.transform[2::3] == (LEFT, TOP) and not notes


def test_a_safe_folder_that_lacks_something_is_refused(tmp_path):
    safe = make_safe(tmp_path, "05.09", None)
    with pytest.raises(InputError, match="MTD_MSIL2A.xml.*without BOA_ADD_OFFSET"):
        Sentinel2Safe(safe).check()
    (safe / "MTD_MSIL2A.xml").write_text("<a><b></a>")
    with pytest.raises(InputError, match="MTD_MSIL2A.xml.*metadata.*mismatched"):
        Sentinel2Safe(safe).check()
    (safe / "MTD_MSIL2A.xml").unlink()
    with pytest.raises(InputError, match="no file .*MTD_MSIL2A.xml"):
        Sentinel2Safe(safe).check()
    whole = make_safe(tmp_path / "other", "02.14", None)
    next(whole.glob("GRANULE/*/IMG_DATA/R20m/*B8A*")).unlink()
    with pytest.raises(InputError, match="one image .*B8A_20m.jp2, found 0"):
        Sentinel2Safe(whole).check()
