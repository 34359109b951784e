"""A new sensor is one entry of the registry and its settings in a run.

Here one is prepared from a file, packed, audited, drawn and trained on. Nothing else knows it.
"""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import rasterio
import torch
from rasterio.transform import Affine

from data.audit.painting import paint, tile_picture
from data.audit.run import audit
from data.audit.summary import summarise
from data.pages.style import colour
from data.prepare.run import prepare
from data.shards.dataset import ShardDataset
from data.shards.encode import ShardOptions
from data.shards.pack import pack
from data.shards.writer import write_shards
from data.stream.decode import decode
from data.tiles.archive import create_archive, read_tile, write_tile
from data.tiles.modalities import MODALITIES, Display, Modality
from engine.config.load import load
from engine.distributed import zero
from engine.training.trainer import train
from tests.commands import TINY
from tests.dist.processes import run_processes
from tests.unit.tiles import make_tile

MODULE = "tests.e2e.test_new_sensor"
THERMAL = Modality(
    key="thermal",
    title="Landsat thermal infrared, K",
    bands=("TIR1", "TIR2"),
    gsd=10.0,
    unit="K",
    mean=(290.0, 289.0),
    std=(10.0, 9.0),
    dtype="float32",
    step=0.01,
    nodata=float("nan"),
    display=Display(colour="#b5651d", least_span=5.0),
)
FRAMES = {"hr": 1, "ms": 6, "sar": 3, THERMAL.key: 2}
# What a user writes to train on it.
SETTINGS = {
    "base": str(TINY),
    "ep_size": 1,
    "data": {"frames": FRAMES},
    "model": {
        "modalities": {
            THERMAL.key: {
                "bands": 2,
                "frames": 2,
                "pixels_per_cell": 1,
                "merge": [False, False, False],
                "position_grids": [2, 2],
            }
        }
    },
    "schedule": {"steps": 3},
}


def temperatures(rng: np.random.Generator, frames: int, cells: int) -> np.ndarray:
    """T 2 N N float32 in K."""
    return rng.normal(290, 8, (frames, 2, cells, cells)).astype(np.float32)


def make_archive(path: Path) -> None:
    """Tiles of all sensors; the last one is without the new one."""
    create_archive(path)
    rng = np.random.default_rng(0)
    for number in range(5):
        tile = make_tile(f"tile-{number}", number, cells=8)
        if number < 4:
            tile.arrays[THERMAL.key] = temperatures(rng, 3, 8)
            tile.valid[THERMAL.key] = rng.random((3, 8, 8)) > 0.2
            tile.dates[THERMAL.key] = ["2019-03-01", "2019-07-02", "2019-11-30"]
        write_tile(path, tile)


def run_training(config_path: str) -> int:
    """Train in this process; the exit code."""
    MODALITIES[THERMAL.key] = THERMAL
    device = zero.init_distributed()
    torch.manual_seed(0)
    return train(load(config_path, world_size=1), device)


def test_it_is_packed_and_trained_on(tmp_path, monkeypatch):
    monkeypatch.setitem(MODALITIES, THERMAL.key, THERMAL)
    make_archive(tmp_path / "archive")
    pack(tmp_path / "archive", tmp_path / "shards", workers=0)
    content = json.loads(json.dumps(SETTINGS))
    content["run_dir"] = str(tmp_path / "run")
    content["data"]["shards"] = str(tmp_path / "shards")
    config = tmp_path / "thermal.json"
    config.write_text(json.dumps({"skysense": content}))
    assert run_processes(1, f"{MODULE}:run_training", [str(config)]) == [0]
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [0, 1, 2]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert THERMAL.key in json.dumps(records[0])


def test_its_numbers_survive_archive_and_shards(tmp_path, monkeypatch):
    monkeypatch.setitem(MODALITIES, THERMAL.key, THERMAL)
    make_archive(tmp_path / "archive")
    tile = read_tile(tmp_path / "archive", "tile-0")
    assert tile.modalities == ["hr", "ms", "sar", THERMAL.key]
    write_shards([tile], tmp_path / "shards", ShardOptions(hr_codec="png"))
    dataset = ShardDataset.open(tmp_path / "shards")
    decoded = decode(dataset, 0, {THERMAL.key: np.arange(3)})
    valid = np.broadcast_to(tile.valid[THERMAL.key][:, None], tile.arrays[THERMAL.key].shape)
    error = decoded.series[THERMAL.key].numpy() - tile.arrays[THERMAL.key]
    assert np.abs(error[valid]).max() <= THERMAL.step / 2 + 1e-4


def test_it_is_audited_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setitem(MODALITIES, THERMAL.key, THERMAL)
    make_archive(tmp_path / "archive")
    pack(tmp_path / "archive", tmp_path / "shards", workers=0)
    dataset = ShardDataset.open(tmp_path / "shards")
    tally, pixels = audit(dataset)
    summary = summarise(dataset, tally, pixels)
    assert not summary.failures
    assert summary.counts.modalities[THERMAL.key] == 4
    assert asdict(summary)["bands"][THERMAL.key]
    assert colour(THERMAL.key) == THERMAL.display.colour
    decoded = decode(dataset, dataset.keys().index("tile-0"), {THERMAL.key: np.arange(3)})
    (image,) = paint(THERMAL.key, [tile_picture(decoded, THERMAL.key, 0)])
    assert image.shape == (8, 8, 3)
    assert image.min() >= 0 and image.max() <= 1


def test_it_is_prepared_from_a_file(tmp_path, monkeypatch):
    monkeypatch.setitem(MODALITIES, THERMAL.key, THERMAL)
    image = temperatures(np.random.default_rng(1), 1, 8)[0]
    image[:, 0, 0] = np.nan
    with rasterio.open(
        tmp_path / "a.tif",
        "w",
        driver="GTiff",
        width=8,
        height=8,
        count=2,
        dtype="float32",
        crs="EPSG:32631",
        transform=Affine(10.0, 0.0, 5e5, 0.0, -10.0, 5.6e6),
    ) as raster:
        raster.write(image)
    source = {
        "reader": "geotiff_image",
        "path": "a.tif",
        "modality": THERMAL.key,
        "bands": list(THERMAL.bands),
        "date": "2019-07-02",
    }
    record = {"key": "a", "sources": [source], "licence": "CC0-1.0", "attribution": "a test"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(record) + "\n")
    prepare(tmp_path / "manifest.jsonl", tmp_path / "archive", workers=0, say=lambda line: None)
    tile = read_tile(tmp_path / "archive", "a")
    assert tile.modalities == [THERMAL.key]
    assert not tile.valid[THERMAL.key][0, 0, 0]
    assert tile.valid[THERMAL.key].sum() == 63
    valid = tile.valid[THERMAL.key][0]
    np.testing.assert_array_equal(tile.arrays[THERMAL.key][0][:, valid], image[:, valid])
