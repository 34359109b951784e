"""What a raster says of its own numbers: scale, offset, unit, type."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.readers.geotiff import GeoTiffBands
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

GAINS = "data gain values = {" + ", ".join(["0.001"] * 10) + "}"  # of an ENVI header


def reflectance(raw, scale, offset):
    """Reflectance x 1e4 by the definition of the tags, at least 1 where something was observed."""
    return np.maximum(np.rint((raw.astype(np.float64) * scale + offset) * 1e4), 1)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(st.floats(1e-5, 4e-4), st.floats(-0.2, 0.2)), min_size=10, max_size=10))
def test_each_band_has_tags_of_its_own(tmp_path, tags):
    rng = np.random.default_rng(0)
    raw = rng.integers(1, 12_000, (10, CELLS, CELLS)).astype(np.uint16)
    scales, offsets = zip(*tags)
    path = write(tmp_path / "a.tif", raw, scales=scales, offsets=offsets)
    array, valid = frame(path, MS)
    assert valid.all()
    for band in range(10):
        np.testing.assert_allclose(
            array[band], reflectance(raw[band], scales[band], offsets[band]), atol=1
        )


def test_tags_of_one_file_a_band(tmp_path):
    files = {}
    for number, band in enumerate(MS):
        path = tmp_path / f"{band}.tif"
        files[band] = write(path, flat(1), scales=[1e-4], offsets=[-0.01 * number])
    reader = GeoTiffBands(files, modality="ms", date="2023-05-20")
    reader.check()
    array = reader.read(GRID)[0].array[0]
    assert array[:, 0, 0].tolist() == [1500 - 100 * number for number in range(10)]


def test_bands_without_a_scale_beside_some_with_one_are_refused(tmp_path):
    scales = [1e-4] * 4 + [1.0] * 6
    path = write(tmp_path / "a.tif", flat(10), scales=scales, offsets=[-0.1] * 4 + [0.0] * 6)
    with pytest.raises(InputError, match=r"a.tif: the file gives a scale .*'B05'\] and none for"):
        image(path, MS)
    silent = {band: {"scale": 1e-4} for band in MS[4:]}
    array, _ = frame(path, MS, band_numbers=silent)
    assert array[:, 0, 0].tolist() == [500] * 4 + [1500] * 6
    files = {}
    for number, band in enumerate(MS):
        tags = {"scales": [1e-4]} if number < 4 else {}
        files[band] = write(tmp_path / f"{band}.tif", flat(1), **tags)
    with pytest.raises(InputError, match=r"B02.tif: the file gives a scale for the bands"):
        GeoTiffBands(files, modality="ms", date="2023-05-20").check()
    # Decibels with scale 1 are decibels.
    path = write(tmp_path / "b.tif", flat(2, "float32", -12), scales=[1.0, 1.0])
    assert (frame(path, SAR, "sar")[0] == -12).all()
    path = write(tmp_path / "c.tif", flat(2, "int16", -1200), scales=[0.01, 1.0])
    with pytest.raises(InputError, match=r"scale for the bands \['VV'\] and none for \['VH'\]"):
        image(path, SAR, "sar")


def test_one_band_of_fractions_beside_others(tmp_path):
    """Rounded to whole numbers it would be nothing, and look like water in a long wave."""
    array = flat(10, "float32", 1500)
    array[9] = 0.15
    path = write(tmp_path / "a.tif", array)
    with pytest.raises(
        InputError, match=r"a.tif: expected reflectance x 10,000, .* 0.15 .* 'scale'"
    ):
        frame(path, MS)
    array[9] = 0  # dark, and no fractions
    array[9, 0, 0] = 0.5
    assert frame(write(tmp_path / "b.tif", array, nodata=-9999), MS)[1].all()


def test_codes_with_a_scale_are_refused(tmp_path):
    codes = flat(1, "uint8", 80)
    for name, tags in (("a.tif", {"scales": [0.1]}), ("b.tif", {"text": {"add_offset": "1"}})):
        path = write(tmp_path / name, codes, **tags)
        with pytest.raises(InputError, match=rf"{name}: band 1: expected codes, found the tags"):
            GeoTiffLabels(path, {"8": "water", "80": "forest"}).check()
        scene = write(tmp_path / "scene.tif", flat(10))
        with pytest.raises(InputError, match=rf"{name}: band 1: expected codes, found the tags"):
            image(scene, MS, mask=path, masked=(8,))


def test_keys_and_tags_must_agree(tmp_path):
    path = write(tmp_path / "a.tif", flat(10), scales=[1e-4] * 10, offsets=[-0.1] * 10)
    assert (frame(path, MS, scale=1e-4, offset=-0.1)[0] == 500).all()
    message = "a.tif: band 1: the file's tags say scale 0.0001 and offset -0.1, the manifest 0.0001"
    with pytest.raises(InputError, match=message):
        image(path, MS, scale=1e-4)
    path = write(tmp_path / "b.tif", flat(10), scales=[0.0] * 10)
    with pytest.raises(InputError, match="b.tif: band 1: scale 0.0: expected a number above 0"):
        image(path, MS)


def test_an_offset_of_raw_numbers_needs_a_scale(tmp_path):
    path = write(tmp_path / "a.tif", flat(10), offsets=[-1000.0] * 10)
    with pytest.raises(InputError, match="tags say scale 1 and offset -1000; give 'scale' and"):
        image(path, MS)
    assert (frame(path, MS, scale=1e-4, offset=-0.1)[0] == 500).all()
    with pytest.raises(InputError, match="a.tif: band 1: the file's tags say scale 1 and offset"):
        image(path, MS, scale=1e-4)


def test_a_scale_that_gives_no_reflectance(tmp_path):
    path = write(tmp_path / "a.tif", flat(10))
    message = "a.tif: expected reflectance, found numbers from 1500 to 1500 with scale 1.0 and"
    with pytest.raises(InputError, match=message):
        frame(path, MS, scale=1.0)


def test_tags_that_a_conversion_left_as_text(tmp_path):
    text = {"scale_factor": "0.0001", "add_offset": "-0.1"}
    assert (frame(write(tmp_path / "a.tif", flat(10), text=text), MS)[0] == 500).all()
    path = write(tmp_path / "b.tif", flat(10), text={"scale_factor": "1e-4 (see guide)"})
    with pytest.raises(InputError, match="band 1: the file's tag scale_factor '1e-4 .see guide.'"):
        image(path, MS)


@pytest.mark.parametrize("header", ["reflectance scale factor = 1000", GAINS])
def test_an_envi_header_says_what_reflectance_1_is(tmp_path, header):
    raw = np.arange(1, 161, dtype="<i2").reshape(10, CELLS, CELLS)
    path = tmp_path / "a.dat"
    path.write_bytes(raw.tobytes())
    place = f"UTM, 1, 1, {LEFT}, {TOP}, 10, 10, 31, North, WGS-84"
    lines = [
        "ENVI",
        f"samples = {CELLS}",
        f"lines = {CELLS}",
        "bands = 10",
        "data type = 2",
        "interleave = bsq",
        "byte order = 0",
        f"map info = {{{place}}}",
        header,
    ]
    path.with_suffix(".hdr").write_text("\n".join(lines) + "\n")
    np.testing.assert_array_equal(frame(path, MS)[0], 10 * raw.astype(int))
    with pytest.raises(InputError, match="the file's tags say scale 0.001 .* the manifest 0.0001"):
        frame(path, MS, scale=1e-4)


def test_tags_of_backscatter_and_of_pictures(tmp_path):
    raw = flat(2, "int16", -1250)
    path = write(tmp_path / "s1.tif", raw, scales=[0.01] * 2)
    np.testing.assert_allclose(frame(path, SAR, "sar")[0], -12.5, atol=1e-5)
    power = write(tmp_path / "power.tif", flat(2, value=500), scales=[1e-4] * 2)
    np.testing.assert_allclose(
        frame(power, SAR, "sar", units="power")[0], 10 * np.log10(0.05), atol=1e-5
    )
    picture = write(tmp_path / "planet.tif", flat(3, value=1500), scales=[1e-4] * 3)
    with pytest.raises(InputError, match="tags say scale 0.0001 and offset 0, which do not give"):
        image(picture, "RGB", "hr")
    # The keys of a picture speak of bytes, and the tags of reflectance: both are true.
    fine = write(tmp_path / "b.tif", flat(3, value=1500, size=128), 0.3125, scales=[1e-4] * 3)
    assert (frame(fine, "RGB", "hr", scale=0.1)[0] == 150).all()


@pytest.mark.parametrize(
    ("modality", "unit", "keys", "message"),
    [
        ("sar", "dB", {}, None),
        ("sar", "power", {"units": "power"}, None),
        ("sar", "dB", {"units": "power"}, "unit is 'dB', the manifest's 'units' 'power'; give"),
        ("sar", "intensity", {}, "unit is 'intensity', the manifest's 'units' 'db'; give 'units':"),
        ("ms", "reflectance", {}, None),
        ("ms", "DN", {}, None),
        ("ms", "%", {"scale": 0.01}, None),
        ("ms", "%", {}, "band 1: the file's unit is '%'; give 'scale'"),
        ("ms", "W/m2/sr/um", {}, "the file's unit is 'W/m2/sr/um'"),
    ],
)
def test_units(tmp_path, modality, unit, keys, message):
    bands = {"sar": SAR, "ms": MS}[modality]
    path = write(tmp_path / "a.tif", flat(len(bands)), units=[unit] * len(bands))
    if message is None:
        image(path, bands, modality, **keys)
        return
    with pytest.raises(InputError, match=message):
        image(path, bands, modality, **keys)


@pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_type_whose_numbers_fit(tmp_path, dtype):
    raw = flat(10, dtype, 200)
    raw[:, 0] = 120
    path = write(tmp_path / "a.tif", raw)
    array, valid = frame(path, MS)
    np.testing.assert_array_equal(array, raw)
    assert valid.all() and array.dtype == np.uint16


def test_doubles_lose_no_more_than_a_float_does(tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.uniform(-30, 0, (2, CELLS, CELLS))
    array, _ = frame(write(tmp_path / "a.tif", raw), SAR, "sar")
    np.testing.assert_array_equal(array, raw.astype(np.float32))
    raw[0, 1, 2] = -1.7e308  # a fill value that no float can hold
    raw[1, 1, 3] = -9999
    assert (~frame(write(tmp_path / "b.tif", raw), SAR, "sar")[1]).sum() == 2


@pytest.mark.parametrize(
    ("modality", "dtype", "value", "message"),
    [
        ("ms", "int32", 70_000, "a.tif: expected ms as uint16, found numbers from 70000 to 70000"),
        ("ms", "float64", 1e9, "found numbers from 1e[+]09 to 1e[+]09; if its unit is another"),
        ("hr", "int32", 300, "expected hr as uint8, found numbers from 300 to 300"),
        ("hr", "int32", -1, "expected hr as uint8, found numbers from -1 to -1"),
        ("ms", "uint8", 200, "found uint8, of which the largest number is reflectance 0.0255"),
        ("hr", "uint16", 300, "expected hr as uint8, found uint16; give 'scale'"),
        ("hr", "float32", 0.5, "expected hr as uint8, found float32; give 'scale'"),
        ("sar", "complex64", 1, "a.tif: band 1: expected real numbers of sar, found complex64"),
        ("ms", "int8", 1, "found int8, of which the largest number is reflectance 0.0255"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tmp_path, modality, dtype, value, message):
    bands = {"sar": SAR, "ms": MS, "hr": "RGB"}[modality]
    path = write(tmp_path / "a.tif", flat(len(bands), dtype, value, size=128), 10 / 32)
    with pytest.raises(InputError, match=message):
        frame(path, bands, modality)


def test_bytes_in_wide_types(tmp_path):
    """As numpy writes them that was not told a type."""
    raw = flat(3, "int64", 77, size=128)
    array, valid = frame(write(tmp_path / "a.tif", raw, 0.3125), "RGB", "hr")
    assert (array == 77).all() and array.dtype == np.uint8 and valid.all()


def test_bands_of_several_types(tmp_path):
    """As virtual rasters join them."""
    parts = {"UInt16": "uint16", "Float32": "float32"}
    bands = ""
    for number, (kind, dtype) in enumerate(parts.items(), 1):
        write(tmp_path / f"{number}.tif", flat(1, dtype, 700 * number))
        bands += (
            f'<VRTRasterBand dataType="{kind}" band="{number}"><SimpleSource><SourceFilename '
            f'relativeToVRT="1">{number}.tif</SourceFilename><SourceBand>1</SourceBand>'
            "</SimpleSource></VRTRasterBand>"
        )
    path = tmp_path / "a.vrt"
    path.write_text(
        f'<VRTDataset rasterXSize="{CELLS}" rasterYSize="{CELLS}"><SRS>EPSG:32631</SRS>'
        f"<GeoTransform>{LEFT},10,0,{TOP},0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    array, _ = frame(path, SAR, "sar", scale=0.01)
    assert array[:, 0, 0].tolist() == [7, 14]
