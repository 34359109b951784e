"""Every kind of source, written by the format's own library with numbers of a formula, read back
onto a grid."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import rasterio
import zarr
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.georeference import Georeference
from data.prepare.contract.grid import Grid
from data.prepare.contract.source import files_of
from data.prepare.manifest.entry import Entry
from data.prepare.readers.cube import NetcdfCube, ZarrCube
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from data.prepare.readers.raster_labels import GeoTiffLabels
from data.prepare.readers.sentinel2_safe import Sentinel2Safe
from data.tiles.classes import INDEX
from data.tiles.modalities import MODALITIES

UTM = CRS.from_epsg(32632)
LEFT, TOP = 600_000, 5_400_000
GRID = Grid(
    UTM, LEFT + 200.0, TOP - 120.0, 16
)  # cells 20 to 36 from the left, 12 to 28 from the top
ROWS, COLUMNS = np.arange(12, 28)[:, None], np.arange(20, 36)[None]
SCENE = 96  # 10 m pixels along the side of a scene
BANDS = MODALITIES["ms"].bands
FINE = ("B02", "B03", "B04", "B08")


def numbers(band: str, size: int) -> np.ndarray:
    """Raw numbers of a band with ``size`` pixels along the scene: a plane, exact at 10 m and
    between 20 m pixels."""
    at = (np.arange(size) + 0.5) * SCENE / size  # in 10 m pixels
    return (2000 + 100 * BANDS.index(band) + 16 * at[:, None] + 8 * at[None]).astype(np.uint16)


def expected(band: str) -> np.ndarray:
    """The plane at the centres of the grid's cells."""
    return 2000 + 100 * BANDS.index(band) + 16 * (ROWS + 0.5) + 8 * (COLUMNS + 0.5)


def write(path: Path, array: np.ndarray, driver="GTiff", **options) -> Path:
    """(C, H, W) over the scene's ground."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    pixel = 10 * SCENE / array.shape[-1]
    with rasterio.open(
        path,
        "w",
        driver=driver,
        count=len(array),
        height=array.shape[1],
        width=array.shape[2],
        dtype=array.dtype,
        crs=UTM,
        transform=Affine(pixel, 0, LEFT, 0, -pixel, TOP),
        **options,
    ) as file:
        file.write(array)
    return path


def clouds() -> np.ndarray:
    """Scene classification at 20 m: vegetation, with a cloud over the 10 m rows 16, 17 and columns
    24, 25."""
    codes = np.full((1, SCENE // 2, SCENE // 2), 4, np.uint8)
    codes[0, 8, 12] = 9
    return codes


def clear() -> np.ndarray:
    mask = np.ones((16, 16), bool)
    mask[4:6, 4:6] = False
    return mask


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
    offsets = (
        ""
        if offset is None
        else "<BOA_ADD_OFFSET_VALUES_LIST>"
        + "".join(f'<BOA_ADD_OFFSET band_id="{i}">{offset}</BOA_ADD_OFFSET>' for i in range(13))
        + "</BOA_ADD_OFFSET_VALUES_LIST>"
    )
    (safe / "MTD_MSIL2A.xml").write_text(
        '<?xml version="1.0" encoding="UTF-8"?><n1:Level-2A_User_Product xmlns:n1="https://psd-14.sentinel2.eo.esa.int/'
        'PSD/User_Product_Level-2A.xsd"><n1:General_Info><Product_Info><PRODUCT_START_TIME>2023-06-11T10:30:21.024Z'
        f"</PRODUCT_START_TIME><PROCESSING_BASELINE>{baseline}</PROCESSING_BASELINE></Product_Info>"
        '<Product_Image_Characteristics><QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000'
        f"</BOA_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>{offsets}</Product_Image_Characteristics>"
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
    with pytest.raises(InputError, match="lack .'B12'."):
        GeoTiffBands(
            {band: files[band] for band in BANDS[:-1]}, modality="ms", date="2022-03-04"
        ).check()
    with pytest.raises(InputError, match="ms has no bands .'B01'."):
        GeoTiffBands({**files, "B01": mask}, modality="ms", date="2022-03-04").check()
    with pytest.raises(InputError, match="mask and masked need each other"):
        GeoTiffBands(files, modality="ms", date="2022-03-04", mask=mask).check()
    with pytest.raises(InputError, match="offset -0.1 without a scale"):
        GeoTiffBands(files, modality="ms", date="2022-03-04", offset=-0.1).check()


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
    with pytest.raises(InputError, match="units 'dB': expected one of"):
        GeoTiffImage(path, ("VV", "VH"), modality="sar", date="2020-01-01", units="dB").check()


def fill_cube(group, rising: bool, days: list[int], text=str, names=("time", "y", "x")) -> None:
    """A cube of all bands at 10 m in an h5py file or zarr group; the frame of day d is d higher."""

    def put(name, array, **attributes):
        made = (
            group.create_dataset(name, data=array)
            if isinstance(group, h5py.File)
            else group.create_array(name, data=np.ascontiguousarray(array))
        )
        made.attrs.update(attributes)

    order = slice(None, None, -1) if rising else slice(None)
    centres = np.arange(SCENE) * 10 + 5.0
    put(
        names[0],
        np.array(days),
        units=text("hours since 2019-12-31 12:00:00"),
        calendar=text("standard"),
    )
    put(names[1], (TOP - centres)[order])
    put(names[2], LEFT + centres)
    put(
        "crs",
        np.int32(0).reshape(()) if isinstance(group, h5py.File) else np.zeros(1, np.int32),
        crs_wkt=text(UTM.to_wkt()),
    )
    for band in BANDS:
        plane = numbers(band, SCENE)[order].astype(np.int16)
        put(
            f"rho_{band}",
            np.stack([plane + day for day in days]),
            grid_mapping=text("crs"),
            scale_factor=1e-4,
            add_offset=0.0,
            _FillValue=-999,
        )
    scene = clouds()[0].repeat(2, 0).repeat(2, 1)[order]
    put("scl", np.stack([scene] + [np.full_like(scene, 4)] * (len(days) - 1)))


@pytest.mark.parametrize("rising", [False, True])
@pytest.mark.parametrize("kind", ["netcdf", "zarr 2", "zarr 3"])
def test_cubes_with_names_of_their_own(tmp_path, kind, rising):
    hours = [36, 12, 24 * 60 + 12]  # January 2nd, 1st, March 1st of a leap year
    names = ("t", "north", "east")
    if kind == "netcdf":
        with h5py.File(tmp_path / "cube", "w") as file:
            fill_cube(file, rising, hours, str.encode, names)
    else:
        fill_cube(
            zarr.open_group(str(tmp_path / "cube"), mode="w", zarr_format=int(kind[-1])),
            rising,
            hours,
            names=names,
        )
    reader = (NetcdfCube if kind == "netcdf" else ZarrCube)(
        path=tmp_path / "cube",
        modality="ms",
        bands={band: f"rho_{band}" for band in BANDS},
        time="t",
        x="east",
        y="north",
        mask="scl",
        masked=(9,),
    )
    reader.check()
    place = Georeference(Affine(10, 0, LEFT, 0, -10, TOP), UTM)
    assert reader.place().georeference == place
    frames = reader.read(GRID)[0]
    assert frames.dates == ["2020-01-01", "2020-01-02", "2020-03-01"]
    for i, band in enumerate(BANDS):
        for frame, hour in enumerate(sorted(hours)):
            np.testing.assert_array_equal(
                frames.array[frame, i], (expected(band) + hour).astype(int)
            )
    np.testing.assert_array_equal(
        frames.valid, np.stack([np.ones((16, 16), bool), clear(), np.ones((16, 16), bool)])
    )


def test_zarr_chunks_that_were_never_written_are_no_observation(tmp_path):
    group = zarr.open_group(str(tmp_path / "cube"), mode="w", zarr_format=3)
    for name, values in (
        ("time", np.array([0])),
        ("y", TOP - 5.0 - 10 * np.arange(SCENE)),
        ("x", LEFT + 5.0 + 10 * np.arange(SCENE)),
    ):
        group.create_array(name, data=values)
    group["time"].attrs["units"] = "days since 2021-02-03"
    for name, level in (("vv", -10), ("vh", -16)):
        array = group.create_array(
            name, shape=(1, SCENE, SCENE), chunks=(1, 24, 24), dtype="float32"
        )
        array[:, :24] = level  # the grid's rows run from 12 to 28
    reader = ZarrCube(
        path=tmp_path / "cube", modality="sar", bands={"VV": "vv", "VH": "vh"}, crs="EPSG:32632"
    )
    reader.check()
    frames = reader.read(GRID)[0]
    assert (
        frames.dates == ["2021-02-03"]
        and frames.valid[0, :12].all()
        and not frames.valid[0, 12:].any()
    )
    torn = next(
        path
        for path in (tmp_path / "cube/vh").rglob("*")
        if path.is_file() and path.name != "zarr.json"
    )
    for path in (tmp_path / "cube/vh").rglob("*"):
        if path.is_file() and path.name != "zarr.json":
            path.write_bytes(path.read_bytes()[:5])
    with pytest.raises(InputError, match="cube: expected a zarr group, found a damaged"):
        reader.read(GRID)
    assert torn.stat().st_size == 5


def test_cubes_that_are_not_as_said_are_refused(tmp_path):
    with h5py.File(tmp_path / "cube.nc", "w") as file:
        fill_cube(file, False, [0, 24], str.encode)
    keys = {
        "path": tmp_path / "cube.nc",
        "modality": "ms",
        "bands": {band: f"rho_{band}" for band in BANDS},
    }
    NetcdfCube(**keys).check()
    for change, words in (
        ({"bands": {**keys["bands"], "B12": "rho"}}, "cube.nc: .*variable 'rho'"),
        ({"x": "lon"}, "variable 'lon'"),
        ({"time": "x"}, "expected units like 'days since"),
        ({"bands": {**keys["bands"], "B12": "crs"}}, r"crs: expected time x y x x"),
        ({"crs": "EPSG:1"}, "the CRS 'EPSG:1' is unknown"),
        ({"modality": "lidar"}, "'lidar'"),
        ({"mask": "scl"}, "need each other"),
    ):
        with pytest.raises(InputError, match=words):
            NetcdfCube(**{**keys, **change}).check()
    with h5py.File(tmp_path / "cube.nc", "a") as file:
        file["time"].attrs["calendar"] = "noleap"
        del file["crs"].attrs["crs_wkt"]
    with pytest.raises(InputError, match="no variable says the CRS; give the key 'crs'"):
        NetcdfCube(**keys).check()
    with pytest.raises(InputError, match="standard calendar.*'noleap'"):
        NetcdfCube(**keys, crs="EPSG:32632").check()


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
    with pytest.raises(InputError, match="code 1: no class 'vinyard' .did you mean 'vineyard'"):
        GeoTiffLabels(path, {"1": "vinyard"}).check()
    with pytest.raises(InputError, match="code 'one': expected a whole number"):
        GeoTiffLabels(path, {"one": "water"}).check()
    with pytest.raises(InputError, match="legend 'corine': expected one of"):
        GeoTiffLabels(path, "corine").check()


def small_files(folder: Path) -> dict:
    """One reader of each format that is one file, by name."""
    write(folder / "a.tif", np.full((2, SCENE, SCENE), -9, np.float32), compress="deflate")
    write(folder / "codes.tif", clouds(), compress="deflate")
    write(folder / "a.jp2", numbers("B02", SCENE)[None], "JP2OpenJPEG")
    with h5py.File(folder / "cube.nc", "w") as file:
        fill_cube(file, False, [0, 24], str.encode)
    bands = {band: f"rho_{band}" for band in BANDS}
    return {
        "tiff": GeoTiffImage(folder / "a.tif", ("VV", "VH"), modality="sar", date="2020-01-01"),
        "jp2": GeoTiffBands(
            {"VV": folder / "a.jp2", "VH": folder / "a.jp2"}, modality="sar", date="2020-01-01"
        ),
        "labels": GeoTiffLabels(folder / "codes.tif", "flair"),
        "netcdf": NetcdfCube(path=folder / "cube.nc", modality="ms", bands=bands),
    }


@pytest.mark.parametrize("name", ["tiff", "jp2", "labels", "netcdf"])
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    share=st.floats(0, 0.98),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=8),
)
def test_damage_is_told_with_the_path_and_nothing_else(tmp_path, name, share, flips):
    reader = small_files(tmp_path)[name]
    path = files_of(reader)[0]
    reader.check(), reader.read(GRID)  # sound before
    torn = bytearray(path.read_bytes())
    for at, change in flips:
        torn[int(at * len(torn))] ^= change
    path.write_bytes(torn[: int(share * len(torn))] if not flips else torn)
    try:
        reader.check()
        place = reader.place()
        assert place.shape
        reader.read(GRID)
    except InputError as error:
        assert path.name in str(error) and "\n" not in str(error)


@pytest.mark.parametrize("name", ["tiff", "jp2", "labels", "netcdf"])
def test_files_that_are_not_there(tmp_path, name):
    reader = small_files(tmp_path)[name]
    path = files_of(reader)[0]
    path.unlink()
    for call in (reader.check, reader.place, lambda: reader.read(GRID)):
        with pytest.raises(InputError, match=f"no file .*{path.name}"):
            call()
