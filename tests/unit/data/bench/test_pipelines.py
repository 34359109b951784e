"""The pipelines that skysense bench data compares do the same work: the same samples, frames,
views and values."""

import json
from itertools import islice

import numpy as np
import pytest
import torch

from data.bench.pipelines import ours, plain, rasters, scenes, stock
from data.bench.rasters import write_rasters, write_scenes
from data.shards.encode import ShardOptions
from data.shards.writer import write_shards
from data.stream.settings import DataSettings, ViewSettings
from tests.commands import skysense
from tests.unit.tiles import SIDES, make_tile

SETTINGS = plain(
    DataSettings(
        frames={"hr": 1, "ms": 3, "sar": 2},
        views=ViewSettings(global_pixels=SIDES, local_pixels=SIDES, local_views=2),
    )
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Smooth tiles, so that another resampling filter finds nearly the same values."""
    folder = tmp_path_factory.mktemp("bench")
    tiles = [make_tile(f"t{i}", i, cells=8, clouds=0.0) for i in range(3)]
    ramp = np.add.outer(np.arange(256), np.arange(256)) / 510
    for tile in tiles:
        tile.arrays["hr"] = np.stack(
            [ramp, ramp.T, ramp[::-1]] * np.array([[[200]], [[150]], [[180]]])
        ).astype(np.uint8)
        tile.arrays["ms"] = (
            1000
            + 2000
            * ramp[16::32, 16::32]
            * np.arange(1, 6)[:, None, None, None]
            * np.ones((1, 10, 1, 1))
        ).astype(np.uint16)
        tile.arrays["sar"] = (-10 - 5 * ramp[16::32, 16::32] * np.ones((4, 2, 1, 1))).astype(
            np.float32
        )
        write_rasters(tile, folder / "rasters" / tile.key)
    write_scenes(tiles[0], folder / "scenes" / tiles[0].key)
    write_shards(tiles, folder / "shards", ShardOptions(hr_codec="jpeg"))
    return folder


def first_uses(pipeline, folder, count):
    return {batch.keys[0]: batch for batch in islice(pipeline(folder, SETTINGS), count)}


def test_stock_webdataset_cuts_the_same_views(folder):
    one, two = first_uses(ours, folder, 3), first_uses(stock, folder, 3)
    assert one.keys() == two.keys() == {"t0", "t1", "t2"}
    for key in one:
        for size, views in one[key].views.items():
            other = two[key].views[size]
            assert torch.equal(views.labels, other.labels) and torch.equal(
                views.affine, other.affine
            )
            for name, image in views.images.items():
                torch.testing.assert_close(
                    image, other.images[name], atol=0.05, rtol=0
                )  # two decoders of one JPEG
                assert torch.equal(views.valid[name], other.valid[name])


@pytest.mark.parametrize(
    "pipeline,keys,most", [(rasters, 3, 0.08), (scenes, 1, 0.3)]
)  # scenes: six bands at 20 m
def test_rasters_show_the_same_ground(folder, pipeline, keys, most):
    one, two = first_uses(ours, folder, 3), first_uses(pipeline, folder, keys)
    assert len(two) == keys
    for key, batch in two.items():
        for size, views in batch.views.items():
            wanted = one[key].views[size]
            assert torch.equal(views.affine, wanted.affine)
            for name, image in views.images.items():
                assert views.valid[name].all()
                assert (image - wanted.images[name]).abs().mean() < most  # of a standard deviation
                assert image.std() > 0.02


def test_the_command_measures_all_pipelines(folder, tmp_path):
    """On tiles that are there already; the figures are the machine's affair, that there are some is
    not."""
    done = skysense(
        "bench",
        "data",
        "--work",
        folder,
        "--samples",
        2,
        "--rounds",
        1,
        "--json",
        tmp_path / "found.json",
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    for rounds in found.values():
        assert set(rounds) == {"ours", "stock webdataset", "rasterio, scenes", "rasterio, own size"}
        assert all(
            row["cpu"] > 0 and row["bytes"] > 0 and row["peak"] > 0
            for rows in rounds.values()
            for row in rows
        )
    assert done.stdout.count("ours") >= 4 and "samples/s per core" in done.stdout
