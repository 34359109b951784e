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
    with pytest.raises(InputError, match="no file MTD_MSIL2A.xml"):
        Sentinel2Safe(safe).check()
    whole = make_safe(tmp_path / "other", "02.14", None)
    next(whole.glob("GRANULE/*/IMG_DATA/R20m/*B8A*")).unlink()
    with pytest.raises(InputError, match="one image .*B8A_20m.jp2, found 0"):
        Sentinel2Safe(whole).check()


def old_schema(safe: Path) -> Path:
    """The product as the agency wrote it in 2017: other elements, and images called L2A_T32..."""
    file = safe / "MTD_MSIL2A.xml"
    text = file.read_text()
    for name in ("Product_Info", "BOA_QUANTIFICATION_VALUE", "Product_Image_Characteristics"):
        text = text.replace(name, f"L2A_{name}")
    file.write_text(text)
    for image in [*safe.glob("GRANULE/*/IMG_DATA/*/*.jp2")]:
        image.rename(image.with_name(f"L2A_{image.name}"))
    return safe


def oldest_layout(safe: Path) -> Path:
    """As of 2016: long names, and the classification beside the folders of the pixel sizes."""
    file = old_schema(safe) / "MTD_MSIL2A.xml"
    file.rename(safe / "S2A_USER_MTD_SAFL2A_PDMC_20160209T011325_R008_V20160208T104841.xml")
    for image in [*safe.glob("GRANULE/*/IMG_DATA/*/*.jp2")]:
        band, size = image.stem.split("_")[-2:]
        name = f"S2A_USER_MSI_L2A_TL_EPA__20160603T191453_A000734_T32UPU_{band}_{size}.jp2"
        if band == "SCL":
            image.rename(
                image.parent.parent
                / f"S2A_USER_SCL_L2A_TL_EPA__20160603T191453_A000734_T32UPU_{size}.jp2"
            )
        else:
            image.rename(image.with_name(name))
    return safe


@pytest.mark.parametrize("change", [old_schema, oldest_layout])
def test_older_schemas_hold_the_same(tmp_path, change):
    reader = Sentinel2Safe(change(make_safe(tmp_path, "02.05", None)))
    reader.check()
    frames = reader.read(GRID)[0]
    for i, band in enumerate(BANDS):
        np.testing.assert_allclose(frames.array[0, i], expected(band), atol=0.51)
    np.testing.assert_array_equal(frames.valid[0], clear())


def test_each_band_has_its_own_offset_and_bright_pixels_are_no_numbers(tmp_path):
    safe = make_safe(tmp_path, "05.11", -1000)
    file = safe / "MTD_MSIL2A.xml"
    text = file.read_text().replace('band_id="8">-1000<', 'band_id="8">-900<')
    file.write_text(text.replace("10:30:21.024Z", "00:30:21+02:00"))
    image = next(safe.glob("GRANULE/*/IMG_DATA/R10m/*B04*"))
    raw = numbers("B04", SCENE)[None].astype(int) + 1000
    raw[0, 13, 21] = 65_535
    write(image, raw.astype(np.uint16), "JP2OpenJPEG", QUALITY="100", REVERSIBLE="YES")
    frames = Sentinel2Safe(safe).read(GRID)[0]
    assert frames.dates == ["2023-06-10"]
    b8a = BANDS.index("B8A")
    np.testing.assert_allclose(frames.array[0, b8a], expected("B8A") + 100, atol=0.51)
    np.testing.assert_allclose(frames.array[0, b8a + 1], expected("B11"), atol=0.51)
    assert not frames.valid[0, 1, 1] and frames.valid[0].sum() == clear().sum() - 1
    file.write_text(text.replace('<BOA_ADD_OFFSET band_id="8">-900</BOA_ADD_OFFSET>', ""))
    with pytest.raises(InputError, match="a BOA_ADD_OFFSET of each band, found none of B8A"):
        Sentinel2Safe(safe).read(GRID)


def test_a_product_is_found_where_archives_put_it(tmp_path):
    safe = make_safe(tmp_path / "a.SAFE", "05.09", -1000)
    whole = Sentinel2Safe(safe).read(GRID)[0]
    assert whole.source == safe.name
    for path, name in (
        (tmp_path / "a.SAFE", f"a.SAFE/{safe.name}"),
        (tmp_path, f"{tmp_path.name}/a.SAFE/{safe.name}"),
        (safe / "MTD_MSIL2A.xml", "MTD_MSIL2A.xml"),
    ):
        frames = Sentinel2Safe(path).read(GRID)[0]
        np.testing.assert_array_equal(frames.array, whole.array)
        assert frames.source == name
    make_safe(tmp_path / "b.SAFE", "05.09", -1000)
    with pytest.raises(InputError, match="expected one product, found the metadata"):
        Sentinel2Safe(tmp_path).check()


def test_packed_and_other_products_are_named(tmp_path):
    for name, words in (
        ("S2A_MSIL2A_20230611T103021_N0509.SAFE.zip", "unpack it (unzip S2A_MSIL2A"),
        ("S2A_MSIL1C_20230611T103021_N0509.SAFE", "found Level-1C"),
    ):
        (fault,) = Sentinel2Safe(tmp_path / name).check_keys()
        assert fault.startswith("path ") and words in fault
    safe = make_safe(tmp_path, "05.09", -1000)
    assert not Sentinel2Safe(safe).check_keys()
    text = (safe / "MTD_MSIL2A.xml").read_text()
    (safe / "MTD_MSIL2A.xml").write_text(text.replace("Level-2A_User", "Level-1C_User"))
    with pytest.raises(InputError, match="found Level-1C"):
        Sentinel2Safe(safe).check()
    (safe / "MTD_MSIL2A.xml").rename(safe / "MTD_MSIL1C.xml")
    with pytest.raises(InputError, match="found Level-1C"):
        Sentinel2Safe(safe).check()
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="found a file; unpack it"):
        Sentinel2Safe(tmp_path / "notes.txt").check()
