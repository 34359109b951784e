"""Rasters written with numbers of a formula, read back onto a grid."""

import numpy as np

from data.prepare.contract.source import files_of
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from tests.unit.data.prepare.readers.scene import (
    BANDS,
    FINE,
    GRID,
    SCENE,
    clear,
    clouds,
    expected,
    numbers,
    write,
)


def test_a_file_a_band_with_scale_offset_and_mask(tmp_path):
    files = {
        band: write(
            tmp_path / f"{band}.tif",
            numbers(band, SCENE if band in FINE else SCENE // 2)[None] + 1000,
            nodata=0,
        )
        for band in BANDS
    }
    mask = write(tmp_path / "SCL.tif", clouds())
    reader = GeoTiffBands(
        files, modality="ms", date="2022-03-04", scale=1e-4, offset=-0.1, mask=mask, masked=(8, 9)
    )
    reader.check()
    assert (
        files_of(reader) == [mask, *files.values()]
        and reader.place().georeference.transform.a == 10
    )
    frames = reader.read(GRID)[0]
    for i, band in enumerate(BANDS):
        np.testing.assert_allclose(frames.array[0, i], expected(band), atol=0.51)
    np.testing.assert_array_equal(frames.valid[0], clear())
    few = {band: files[band] for band in BANDS[:-1]}
    for wrong, keys, words in (
        (few, {}, "lack ['B12']"),
        ({**files, "B01": mask}, {}, "ms has no bands ['B01']"),
        (files, {"mask": mask}, "mask and masked need each other"),
        (files, {"offset": -0.1}, "offset -0.1 without a scale"),
    ):
        (fault,) = GeoTiffBands(wrong, modality="ms", date="2022-03-04", **keys).check_keys()
        assert words in fault


def test_bands_with_numbers_of_their_own(tmp_path):
    """In a file a band and in one file of all: the plane, whatever the scale of each band."""
    ways = {"B02": (1e-4, -0.1), "B08": (2e-4, 0.0), "B12": (5e-5, 0.05)}
    raw = {}
    for band in BANDS:
        scale, offset = ways.get(band, (1e-4, 0.0))
        plane = numbers(band, SCENE)[None] * 1e-4
        raw[band] = np.rint((plane - offset) / scale).astype(np.uint16)
    keys = {
        "modality": "ms",
        "date": "2022-03-04",
        "scale": 1e-4,
        "band_numbers": {
            **{band: {"scale": scale, "offset": offset} for band, (scale, offset) in ways.items()},
            "B05": {"nodata": float(raw["B05"][0, 14, 22])},
        },
    }
    files = {band: write(tmp_path / f"{band}.tif", raw[band]) for band in BANDS}
    image = write(tmp_path / "all.tif", np.concatenate(list(raw.values())))
    for reader in (GeoTiffBands(files, **keys), GeoTiffImage(image, BANDS, **keys)):
        assert not reader.check_keys()
        reader.check()
        frames = reader.read(GRID)[0]
        missing = expected("B05") == expected("B05")[2, 2]
        np.testing.assert_array_equal(frames.valid[0], ~missing)
        for i, band in enumerate(BANDS):
            array = frames.array[0, i][~missing]
            np.testing.assert_allclose(array, expected(band)[~missing], atol=1.1)
    keys["band_numbers"] = {"B2": {"scal": 1}, "B03": {"scale": -1}}
    faults = GeoTiffBands(files, **keys).check_keys()
    assert [fault.split("; ")[0] for fault in faults] == [
        "band_numbers: ms has no band 'B2' (did you mean 'B12'?)",
        "band_numbers: B2: unknown ['scal']",
        "band_numbers: B03: scale -1: expected a number above 0",
    ]


def test_dark_pixels_are_observed_and_nodata_is_not(tmp_path):
    raw = np.full((10, SCENE, SCENE), 1500, np.uint16)
    raw[3, 12, 20], raw[5, 12, 21], raw[0, 12, 22] = 900, 0, 7
    path = write(tmp_path / "a.tif", raw)
    reader = GeoTiffImage(
        path, BANDS, modality="ms", date="2022-01-01", scale=1e-4, offset=-0.1, nodata=7
    )
    frames = reader.read(GRID)[0]
    assert frames.array[0, 3, 0, 0] == 1 and frames.valid[0, 0].tolist()[:4] == [
        True,
        False,
        False,
        True,
    ]
    assert (frames.array[0, :, 1:] == 500).all()


def test_sar_in_power_amplitude_and_decibel(tmp_path):
    rng = np.random.default_rng(0)
    decibel = np.stack(
        [rng.uniform(-20, -5, (SCENE, SCENE)), rng.uniform(-28, -12, (SCENE, SCENE))]
    )
    power = 10 ** (decibel / 10)
    power[0, 13, 22] = 0
    window = (slice(None), slice(12, 28), slice(20, 36))
    hole = np.ones((16, 16), bool)
    hole[1, 2] = False
    for units, array in (("power", power), ("amplitude", np.sqrt(power)), ("db", decibel)):
        path = write(tmp_path / f"{units}.tif", array.astype(np.float32))
        reader = GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01", units=units)
        reader.check()
        frames = reader.read(GRID)[0]
        sound = np.ones((16, 16), bool) if units == "db" else hole
        np.testing.assert_array_equal(frames.valid[0], sound)
        np.testing.assert_allclose(frames.array[0][:, sound], decibel[window][:, sound], atol=1e-4)
    path = write(tmp_path / "scaled.tif", np.rint(decibel * 100).astype(np.int16))
    frames = GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01", scale=0.01).read(
        GRID
    )[0]
    np.testing.assert_allclose(frames.array[0], decibel[window], atol=0.006)
    reader = GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01", units="dB")
    (fault,) = reader.check_keys()
    assert fault.startswith("units 'dB': expected one of")
