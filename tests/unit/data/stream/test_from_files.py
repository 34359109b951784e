"""Files of the archives that people use, from the disk to the numbers that training reads.

Every band is a plane over the ground. So its number at any place follows from a formula, whatever
was cut, interpolated, scaled, packed and decoded on the way.
"""

from dataclasses import replace
from datetime import date

import numpy as np
import pytest
import shapely
from affine import Affine
from pyproj import Transformer
from rasterio.enums import ColorInterp

from data.prepare.run import prepare
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.pack import pack
from data.stream.batches import open_stream
from data.stream.decode import decode
from data.stream.sample import ViewSet
from data.stream.settings import GLOBAL, AugmentSettings, ViewSettings
from tests.unit.data.prepare.manifest.test_stac_numbers import planetary_item
from tests.unit.data.prepare.readers import rasters, scene
from tests.unit.data.prepare.readers.test_sentinel2_safe import make_safe
from tests.unit.manifests import write_lines, write_stac
from tests.unit.tiles import SETTINGS

CELLS = 16
MS = rasters.MS
DAY = "2023-05-20"
# PAPER.md, section 1: means and deviations of Sentinel-2 and Sentinel-1.
MS_MEAN = [884.30, 1144.16, 1297.47, 1624.91, 2194.64]
MS_MEAN += [2422.21, 2517.76, 2581.65, 2368.51, 1805.07]
MS_STD = [1155.15, 1183.63, 1368.11, 1370.27, 1355.55]
MS_STD += [1416.51, 1474.79, 1439.31, 1455.52, 1343.48]


def plane(band: int, pixel: float = 10.0, cells: int = CELLS) -> np.ndarray:
    """Reflectance x 1e4 of a band at the centres of pixels, whole numbers at 10 m: h h float64."""
    at = (np.arange(round(10 * cells / pixel)) + 0.5) * pixel / 10 - 0.5  # cells
    return 300 + 200 * band + 16 * at[:, None] + 8 * at[None]


def planes(bands: int = 10) -> np.ndarray:
    """Of some bands: C N N."""
    return np.stack([plane(band) for band in range(bands)])


def dataset_of(folder, source: dict | None = None, **manifest) -> ShardDataset:
    """The packed tile of a manifest, or of one source; the image as PNG, which loses nothing."""
    if source is not None:
        line = {"key": "a", "licence": "CC0-1.0", "attribution": "nobody"}
        sources = [{"date": DAY, **source}]
        manifest = {"path": write_lines(folder / "m.jsonl", [{**line, "sources": sources}])}
    path = manifest.pop("path")
    report = prepare(path, folder / "out", workers=0, say=str, **manifest)
    assert not report["rejected"]
    pack(folder / "out", folder / "shards", ShardOptions(hr_codec="png"), workers=0, say=str)
    return ShardDataset.open(folder / "shards")


def read(dataset: ShardDataset, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The first frame of a sensor and its mask: C H W and N N."""
    decoded = decode(dataset, 0, {name: np.arange(1)})
    return decoded.images(name)[0].double().numpy(), decoded.valid[name][0].numpy()


def check(dataset: ShardDataset, name: str, expected: np.ndarray, missing: set) -> None:
    """The numbers of the valid pixels, and which cells are missing."""
    numbers, valid = read(dataset, name)
    assert set(zip(*np.nonzero(~valid))) == missing
    np.testing.assert_array_equal(numbers[:, valid], expected[:, valid])


def test_terramesh(tmp_path):
    """Names in the descriptions, doubles, 1000 added, pixels that lie on no multiple of 10 m."""
    corner = Affine(10, 0, rasters.LEFT + 3.7, 0, -10, rasters.TOP - 1.2)
    names = ["B01", *MS[:8], "B09", *MS[8:]]
    raw = np.zeros((12, CELLS, CELLS))
    for band, numbers in zip(MS, planes()):
        raw[names.index(band)] = numbers + 1000
    raw[:, 3, 4] = np.nan
    rasters.write(tmp_path / "a.tif", raw, transform=corner, nodata=np.nan, names=names)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "ms", "bands": MS}
    dataset = dataset_of(tmp_path, {**source, "scale": 1e-4, "offset": -0.1})
    check(dataset, "ms", planes(), {(3, 4)})


@pytest.mark.parametrize("unit", [1.0, 1e4])
def test_google_earth_engine(tmp_path, unit):
    """Bands as B2, B3, ..., masks beside them; as counts, or scaled to reflectance."""
    names = ["B1", *(band.replace("B0", "B") for band in MS), "QA60", "MSK_CLDPRB"]
    raw = np.full((13, CELLS, CELLS), 7.0)
    raw[1:11] = planes()
    raw[:11] /= unit
    raw[:, 0, 0] = 0  # masked
    rasters.write(tmp_path / "a.tif", raw.astype("uint16" if unit == 1 else "float32"), names=names)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "ms", "bands": MS}
    if unit != 1:
        source["scale"] = 1.0
    check(dataset_of(tmp_path, source), "ms", planes(), {(0, 0)})


def test_sentinel_1_of_google_earth_engine(tmp_path):
    """dB with its angle beside it: shards keep hundredths of a dB."""
    raw = np.stack([-9 - planes(1)[0] / 300, -16 - planes(2)[1] / 300, planes(1)[0] / 10])
    rasters.write(tmp_path / "a.tif", raw, names=["VV", "VH", "angle"])
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "sar"}
    dataset = dataset_of(tmp_path, {**source, "bands": ["VV", "VH"]})
    numbers, valid = read(dataset, "sar")
    assert valid.all()
    np.testing.assert_allclose(numbers, raw[:2], atol=0.005 + 1e-5)


def test_planetscope(tmp_path):
    """Blue, green, red, near infrared in 16 bits, 3 m, nothing outside the scene."""
    colours = [ColorInterp.blue, ColorInterp.green, ColorInterp.red, ColorInterp.undefined]
    raw = np.stack([plane(band, pixel=3.0, cells=18) for band in range(4)])  # 4 60 60
    raw[:, :, 41:] = 0
    path = tmp_path / "a.tif"
    rasters.write(path, raw.round().astype(np.uint16), 3.0, nodata=0, colours=colours)
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "hr"}
    source |= {"bands": ["B", "G", "R", "NIR"], "scale": 255 / 1500}
    numbers, valid = read(dataset_of(tmp_path, source), "hr")
    seen = np.arange(len(valid)) < 12  # 41 pixels are 123 m
    np.testing.assert_array_equal(valid, np.broadcast_to(seen, valid.shape))
    fine = np.stack([plane(band, pixel=0.3125, cells=len(valid)) for band in (2, 1, 0)])
    inside = np.s_[:, 5:-5, 5 : 12 * 32 - 5]  # where 3 m pixels lie on both sides
    # Rounded as raw numbers, as bytes of 3 m, and as interpolated bytes.
    rounding = 0.5 * 255 / 1500 + 0.5 + 0.5
    np.testing.assert_allclose(numbers[inside], fine[inside] * 255 / 1500, atol=rounding)


def middle_of_scene() -> list[float]:
    """Longitude and latitude of the middle of the scene's grid."""
    half = 5 * scene.GRID.cells
    to_degrees = Transformer.from_crs(scene.UTM, 4326, always_xy=True)
    return list(to_degrees.transform(scene.GRID.x0 + half, scene.GRID.y0 - half))


def check_scene(dataset: ShardDataset) -> None:
    """The scene's planes and its cloud; bands of 20 m are interpolated and then rounded."""
    numbers, valid = read(dataset, "ms")
    assert dataset.entry(0).dates["ms"] == ["2023-06-11"]
    np.testing.assert_array_equal(valid, scene.clear())
    expected = np.stack([scene.expected(band) for band in MS])
    np.testing.assert_allclose(numbers[:, valid], expected[:, valid], atol=0.51)


@pytest.mark.parametrize("baseline, offset", [("02.14", None), ("05.11", -1000)])
def test_a_product_of_the_copernicus_data_space(tmp_path, baseline, offset):
    safe = make_safe(tmp_path, baseline, offset)
    line = {"key": "a", "licence": "x", "attribution": "ESA", "centre": middle_of_scene()}
    line |= {"cells": 16, "sources": [{"reader": "sentinel2_safe", "path": safe.name}]}
    check_scene(dataset_of(tmp_path, path=write_lines(tmp_path / "m.jsonl", [line])))


@pytest.mark.parametrize("baseline, added", [("02.14", 0), ("05.11", 1000)])
def test_an_item_of_the_planetary_computer(tmp_path, baseline, added):
    for band in MS:
        side = scene.SCENE if band in scene.FINE else scene.SCENE // 2
        raw = scene.numbers(band, side)[None] + added
        scene.write(tmp_path / f"{band}.tif", raw.astype(np.uint16))
    scene.write(tmp_path / "SCL.tif", scene.clouds())
    lon, lat = middle_of_scene()
    item = planetary_item(
        **{"s2:processing_baseline": baseline, "datetime": "2023-06-12T00:30:00+02:00"}
    )
    item["geometry"] = shapely.geometry.mapping(shapely.Point(lon, lat).buffer(0.1))
    for name, asset in item["assets"].items():
        asset["href"] = f"./{name}.tif"
    path, tiles = write_stac(tmp_path, [item], f"key,lon,lat,cells\na,{lon},{lat},16\n")
    check_scene(dataset_of(tmp_path, path=path, tiles=tiles))


def test_a_batch_shows_the_same_planes(tmp_path):
    """Whatever view was cut, mirrored, turned and resized: by its affine, the formula holds."""
    rasters.write(tmp_path / "a.tif", planes().astype(np.uint16))
    source = {"reader": "geotiff_image", "path": "a.tif", "modality": "ms", "bands": list(MS)}
    dataset = dataset_of(tmp_path, source)
    views = ViewSettings(
        global_pixels={"hr": 32, "ms": 8, "sar": 8}, local_pixels={"hr": 32, "ms": 4, "sar": 4}
    )
    settings = replace(SETTINGS, views=views, augment=AugmentSettings(date_jitter_days=0))
    for batch in open_stream(dataset, settings, seed=0, batch_size=1, steps=range(3)):
        days = batch.views[GLOBAL].days["ms"][0, :, 0]  # V
        assert (days == date.fromisoformat(DAY).timetuple().tm_yday - 1).all()
        check_views(batch.views[GLOBAL])


def check_views(views: ViewSet) -> None:
    """The normalised numbers of the first frame are those of the planes at the pixels' places.

    Only in the middle of a view, where the kernel that resizes it reaches no edge.
    """
    images = views.images["ms"][0, :, 0].double().numpy()  # V 10 n n
    side = images.shape[-1]
    middle = slice(side // 2 - 1, side // 2 + 1)
    u, v = np.meshgrid(*[(np.arange(side)[middle] + 0.5) / side] * 2)
    for image, affine in zip(images, views.affine[0].numpy()):
        places = np.stack([u, v, np.ones_like(u)], -1) @ affine.T  # 2 2 2, cells
        x, y = np.moveaxis(places, -1, 0) - 0.5
        for band in range(10):
            expected = (300 + 200 * band + 16 * y + 8 * x - MS_MEAN[band]) / MS_STD[band]
            np.testing.assert_allclose(image[band, middle, middle], expected, atol=1e-3)
