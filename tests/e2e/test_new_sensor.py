"""Sensors of a user's own: from a sensors file and rasters to trained, exported weights.

The commands are those of any user, and each is a process of its own. No source file knows the
sensors: near infrared beside RGB at 2.5 m, Landsat of 30 m, four polarisations of a radar.
"""

import json
from pathlib import Path

import numpy as np
import pytest
import rasterio
import torch
from rasterio.transform import Affine

from data.audit.findings.summary import summarise
from data.audit.page.painting import paint, tile_picture
from data.audit.run import audit
from data.audit.statistics import write_statistics
from data.pages.style import colour
from data.shards.dataset import ShardDataset
from data.stream.decode import decode
from data.tiles.archive import read_tile
from data.tiles.modalities import MODALITIES, SENSORS, normalise
from engine.config.load import load as load_config
from engine.errors import ConfigError
from engine.pretrained.weights import load, sensors
from tests.commands import TINY, skysense

CELLS = 8
LANDSAT = ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
DEFINITIONS = [
    {
        "key": "rgbn",
        "bands": ["R", "G", "B", "NIR"],
        "gsd": 2.5,
        "unit": "byte",
        "scale": 255,
        "dtype": "uint8",
        "nodata": None,
        "display": {"colour": "#b5651d", "true_colour": ["R", "G", "B"]},
    },
    {
        "key": "landsat",
        "bands": LANDSAT,
        "gsd": 10,
        "unit": "reflectance x 1e4",
        "dtype": "uint16",
        "nodata": 0,
    },
    {
        "key": "polsar",
        "bands": ["HH", "HV", "VH", "VV"],
        "gsd": 10,
        "unit": "dB",
        "dtype": "float32",
        "step": 0.01,
        "nodata": "NaN",
    },
]
FRAMES = {"rgbn": 1, "landsat": 2, "polsar": 1}
PIXELS = {"rgbn": 4, "landsat": 1, "polsar": 1}


def raster(path: Path, image: np.ndarray, *, gsd: float, outside: float = 0) -> None:
    """Write C H W; its upper left corner is ``outside`` metres beyond that of the tile."""
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        width=image.shape[2],
        height=image.shape[1],
        count=len(image),
        dtype=image.dtype,
        crs="EPSG:32631",
        transform=Affine(gsd, 0.0, 5e5 - outside, 0.0, -gsd, 5.6e6 + outside),
    ) as file:
        file.write(image)


def ramp(side: int, gsd: float, start: float) -> np.ndarray:
    """Seven bands that grow by 3 a metre to the right and 5 a metre down."""
    metres = start + gsd * (np.arange(side) + 0.5)
    plane = 3000 + 3 * metres[None, :] + 5 * metres[:, None]
    return (plane + 100 * np.arange(7)[:, None, None]).astype(np.uint16)


def make_sources(folder: Path) -> list[dict]:
    """Rasters of four tiles, and the records of their manifest."""
    rng = np.random.default_rng(0)
    records = []
    for number in range(4):
        side = 4 * CELLS
        rgbn = rng.integers(0, 256, (4, side, side)).astype(np.uint8)
        power = rng.uniform(0.01, 0.5, (4, CELLS, CELLS)).astype(np.float32)
        power[:, 0, 0] = np.nan
        raster(folder / f"rgbn{number}.tif", rgbn, gsd=2.5)
        raster(folder / f"power{number}.tif", power, gsd=10)
        raster(folder / f"l{number}.tif", ramp(5, 30, -35) + number, gsd=30, outside=35)
        image = {"reader": "geotiff_image", "date": "2019-07-02"}
        sources = [
            {**image, "path": f"power{number}.tif", "modality": "polsar", "units": "power"},
            {**image, "path": f"rgbn{number}.tif", "modality": "rgbn"},
            {**image, "path": f"l{number}.tif", "modality": "landsat"},
        ]
        for source in sources:
            (known,) = [one for one in DEFINITIONS if one["key"] == source["modality"]]
            source["bands"] = known["bands"]
        tile = {"key": f"t{number}", "licence": "CC0-1.0", "attribution": "a test"}
        records.append({**tile, "sources": sources})
    return records


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    """A folder with sources, archive and shards, made by the commands."""
    folder = tmp_path_factory.mktemp("sensors")
    lines = [json.dumps(record) + "\n" for record in make_sources(folder)]
    (folder / "manifest.jsonl").write_text("".join(lines))
    (folder / "sensors.json").write_text(json.dumps({"sensors": DEFINITIONS}))
    files = ["--manifest", folder / "manifest.jsonl", "--sensors", folder / "sensors.json"]
    done = skysense("prepare", *files, "--out", folder / "archive", "--workers", 1)
    assert done.returncode == 0 and "4 tiles, 0 rejected" in done.stdout, done.stderr + done.stdout
    archive = ["--archive", folder / "archive"]
    done = skysense("shards", *archive, "--out", folder / "shards", "--workers", 1)
    assert done.returncode == 0, done.stderr
    return folder


def test_values_are_right_from_the_files_to_the_shards(work):
    tile = read_tile(work / "archive", "t1")
    assert tile.modalities == ["landsat", "polsar", "rgbn"]
    with rasterio.open(work / "power1.tif") as file:
        expected = 10 * np.log10(file.read().astype(np.float64))
    valid = tile.valid["polsar"][0]
    assert valid.sum() == CELLS**2 - 1 and not valid[0, 0]
    np.testing.assert_allclose(tile.arrays["polsar"][0][:, valid], expected[:, valid], atol=1e-5)
    with rasterio.open(work / "rgbn1.tif") as file:
        np.testing.assert_array_equal(tile.arrays["rgbn"][0], file.read())
    # bilinear interpolation keeps a plane
    error = tile.arrays["landsat"][0].astype(int) - (ramp(CELLS, 10, 0) + 1)
    assert np.abs(error).max() <= 1 and tile.valid["landsat"].all()

    dataset = ShardDataset.open(work / "shards")
    every = {name: np.arange(1) for name in tile.modalities}
    decoded = decode(dataset, dataset.keys().index("t1"), every)
    for name in ("rgbn", "landsat"):
        np.testing.assert_array_equal(decoded.series[name].numpy(), tile.arrays[name])
    error = decoded.series["polsar"][0].numpy()[:, valid] - tile.arrays["polsar"][0][:, valid]
    assert np.abs(error).max() <= 0.005 + 1e-4


def test_they_are_audited_and_drawn(work):
    dataset = ShardDataset.open(work / "shards")
    tally, pixels = audit(dataset)
    summary = summarise(dataset, tally, pixels)
    assert not summary.failures
    assert summary.counts.modalities == {"landsat": 4, "polsar": 4, "rgbn": 4}
    assert colour("rgbn") == "#b5651d"
    decoded = decode(dataset, 0, {"rgbn": np.arange(1)})
    (image,) = paint("rgbn", [tile_picture(decoded, "rgbn", 0)])
    assert image.shape == (4 * CELLS, 4 * CELLS, 3)
    assert image.min() == 0 and image.max() == 1
    shown = skysense("sensors", work / "shards")
    assert "polsar (own)" in shown.stdout and "not measured" in shown.stdout, shown.stderr


def settings(work: Path) -> dict:
    """What a user writes to train on them alone."""
    modalities: dict = dict.fromkeys(("hr", "ms", "sar"))
    for name, frames in FRAMES.items():
        (known,) = [one for one in DEFINITIONS if one["key"] == name]
        modalities[name] = {
            "bands": len(known["bands"]),
            "frames": frames,
            "merge": [False, False, False],
            "position_grids": [2, 2],
        }
    sides = {name: 4 * PIXELS[name] for name in FRAMES}
    return {
        "base": str(TINY),
        "ep_size": 1,
        "run_dir": str(work / "run"),
        "data": {
            "shards": str(work / "shards"),
            "frames": {**dict.fromkeys(("hr", "ms", "sar")), **FRAMES},
            "views": {"global_pixels": sides, "local_pixels": sides},
        },
        "model": {"modalities": modalities},
        "schedule": {"steps": 2},
    }


@pytest.fixture(scope="module")
def trained(work) -> Path:
    """The run folder of two steps on the three sensors alone, and beside it its export."""
    config = work / "own.json"
    config.write_text(json.dumps({"skysense": settings(work)}))
    _, pixels = audit(ShardDataset.open(work / "shards"))
    write_statistics(work / "measured.json", pixels)
    measured = f"skysense.data.sensors={work / 'measured.json'}"
    done = skysense("pretrain", "--config", config, "--set", measured)
    assert done.returncode == 0, done.stderr
    done = skysense("export", work / "run", "--out", work / "weights")
    assert done.returncode == 0, done.stderr
    return work / "run"


def test_they_are_trained_on(trained):
    records = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert [record["step"] for record in records] == [0, 1]
    assert all(np.isfinite(record["loss"]) for record in records)


def test_a_run_needs_their_statistics(work):
    path = work / "unmeasured.json"
    path.write_text(json.dumps({"skysense": settings(work)}))
    with pytest.raises(ConfigError, match="rgbn: expected its mean and std, which nobody"):
        load_config(path)


def test_weights_are_used_without_dataset_and_definitions(trained, monkeypatch):
    built_in = {sensor.key: sensor for sensor in SENSORS}
    monkeypatch.setattr(MODALITIES, "_sensors", built_in)
    for folder in (trained, trained.with_name("weights")):
        known = sensors(folder)
        assert list(known) == ["rgbn", "landsat", "polsar"]
        tile = np.full((1, 4, 16, 16), 255 * known["rgbn"].mean[1], np.float32)
        image = torch.from_numpy(normalise(tile, known["rgbn"]))  # T C H W
        assert image[0, 1].abs().max() < 1e-5
        model = load(folder, modalities=("rgbn", "polsar"))
        radar = torch.zeros(1, 4, 4, 4)
        days = {"rgbn": torch.tensor([180]), "polsar": torch.tensor([10])}
        maps = model({"rgbn": image, "polsar": radar}, days)
        assert maps.fused is not None and maps.vectors["rgbn"].isfinite().all()
    assert list(MODALITIES) == ["hr", "ms", "sar"]
