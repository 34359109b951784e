"""Own sensors on their way to a batch: fine pixels, masks, statistics, processes, mixtures."""

import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from data.audit.page.inspection import draw_sample, with_own_sensors
from data.errors import InputError
from data.seeded import generator
from data.shards.dataset import ShardDataset
from data.shards.writer import write_shards
from data.stream.batches import open_stream
from data.stream.decode import decode
from data.stream.mixture import Mixture
from data.stream.settings import DataSettings, ViewSettings
from data.stream.views import View, cut_hr, cut_series
from data.tiles.archive import create_archive, read_tile, write_tile
from data.tiles.definitions import Definition
from data.tiles.modalities import MODALITIES
from data.tiles.sensor import Display, Modality
from data.tiles.tile import Tile
from tests.unit.tiles import make_tile

CELLS = 6
FINE = Modality(
    key="fine",
    title="a camera of 2.5 m",
    bands=("R", "G", "B", "NIR"),
    gsd=2.5,
    unit="byte",
    scale=255.0,
    mean=(0.4, 0.5, 0.6, 0.7),
    std=(0.1, 0.2, 0.3, 0.4),
    dtype="uint8",
    nodata=None,
    display=Display(colour="#000000", least_span=1.0),
)


def describe(**changes) -> list[Definition]:
    """FINE with some facts changed, as a file has it."""
    return [Definition.of(replace(FINE, **changes))]


def fine_tile(number: int) -> Tile:
    """A tile with two frames of FINE, of which some cells are invalid."""
    rng = np.random.default_rng(number)
    tile = make_tile(f"t{number}", number, cells=CELLS)
    side = 4 * CELLS
    tile.arrays["fine"] = rng.integers(0, 256, (2, 4, side, side)).astype(np.uint8)
    tile.valid["fine"] = rng.random((2, CELLS, CELLS)) > 0.2
    tile.dates["fine"] = ["2019-03-01", "2019-07-02"]
    return tile


def dataset(folder, **changes) -> ShardDataset:
    """Three tiles with FINE."""
    tiles = [fine_tile(number) for number in range(3)]
    write_shards(tiles, folder, sensors=describe(**changes))
    return ShardDataset.open(folder)


def pixels(mask: np.ndarray, count: int) -> np.ndarray:
    """A mask of cells spread over their pixels."""
    return np.kron(mask, np.ones((1, count, count), bool))


def test_fine_frames_survive_shards_and_hide_invalid_cells(tmp_path):
    shards = dataset(tmp_path)
    number = shards.keys().index("t1")
    decoded = decode(shards, number, {"fine": np.arange(2)})
    tile = fine_tile(1)
    mask = pixels(tile.valid["fine"], 4)[:, None]
    np.testing.assert_array_equal(decoded.series["fine"], tile.arrays["fine"] * mask)
    np.testing.assert_array_equal(decoded.valid["fine"], tile.valid["fine"])


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("cells", [2, 4, 8])
def test_a_series_of_fine_pixels_is_cut_like_the_high_resolution_image(cells, whole):
    rng = generator(0, "fine", cells)
    # smooth, because torch rounds and cuts bytes between rows and columns
    phases = torch.arange(32 * CELLS) / torch.tensor([[9.0], [14.0], [23.0]])  # 3 H
    waves = 40 * (phases.sin()[:, :, None] + phases.cos()[:, None, :])  # 3 H W
    image = (128 + waves).round().to(torch.uint8)
    mask = torch.from_numpy(rng.random((CELLS, CELLS)) > 0.2)
    if whole:
        mask[:] = True
    view = View(1, 0, w=4, h=5, flip=True, turns=1)
    side = 32 * cells
    expected, expected_valid = cut_hr(image, mask, view, side)
    fine_mask = mask.repeat_interleave(32, 0).repeat_interleave(32, 1)
    series = (image * fine_mask)[None].float()
    shown, valid = cut_series(series, mask[None], view, side)
    assert torch.equal(valid[0], expected_valid)
    assert (shown[0].clamp(0, 255) - expected.float()).abs().max() <= 2
    assert (shown[0] * ~valid[0] == 0).all()


def settings(folder, **changes) -> DataSettings:
    """One global view that is the whole tile, without turns."""
    views = ViewSettings(
        global_pixels={"fine": 16},
        local_pixels={"fine": 16},
        local_views=1,
        flips=False,
        quarter_turns=False,
    )
    plain = DataSettings(shards=str(folder), workers=0, frames={"fine": 2}, views=views)
    return replace(plain, **changes)


def batch(source, chosen: DataSettings):
    """The first batch."""
    (made,) = open_stream(source, chosen, seed=0, batch_size=3, steps=range(1))
    return made


def test_a_batch_is_divided_by_the_scale_and_normalised_by_band(tmp_path):
    shards = dataset(tmp_path)
    views = batch(shards, settings(tmp_path)).views["global"]
    images = views.images["fine"]  # B V T C H W
    assert images.shape == (3, 2, 2, 4, 16, 16)
    mask = views.valid["fine"]  # B V T H W
    assert (images.movedim(3, 0)[:, ~mask] == 0).all()
    values = images.movedim(3, 0)[:, mask]  # C n
    assert 0 < len(values[0]) < mask.numel()
    stored = values * torch.tensor(FINE.std)[:, None] + torch.tensor(FINE.mean)[:, None]
    # uniform bytes divided by 255
    assert (stored.mean(1) - 0.5).abs().max() < 0.05
    assert stored.min() > -0.6 and stored.max() < 1.6


def test_a_spawned_process_knows_what_its_dataset_describes(tmp_path, monkeypatch):
    shards = dataset(tmp_path, mean=(), std=())
    measured = tmp_path / "measured.json"
    measured.write_text(json.dumps({"sensors": [describe()[0].to_json()]}))
    mixture = Mixture.open(settings(tmp_path, sensors=str(measured)))
    sent = pickle.dumps(mixture)
    expected = batch(mixture, settings(tmp_path))
    monkeypatch.setattr(MODALITIES, "_sensors", {one.key: one for one in MODALITIES.built_in})
    assert "fine" not in MODALITIES
    again = batch(pickle.loads(sent), settings(tmp_path))
    assert MODALITIES["fine"].mean == FINE.mean
    assert torch.equal(
        again.views["global"].images["fine"], expected.views["global"].images["fine"]
    )
    assert len(shards) == 3


def test_a_sensor_without_statistics_makes_no_batch(tmp_path):
    shards = dataset(tmp_path, mean=(), std=())
    with pytest.raises(InputError, match=r"'fine': expected its mean and std, .*write_statistics"):
        batch(shards, settings(tmp_path))


def test_datasets_of_a_mixture_must_agree(tmp_path):
    write_shards([fine_tile(0)], tmp_path / "a", sensors=describe())
    MODALITIES.__init__(MODALITIES.built_in)  # as another process that packs
    other = (0.1, 0.1, 0.1, 0.1)
    write_shards([fine_tile(1)], tmp_path / "b", sensors=describe(mean=other))
    MODALITIES.__init__(MODALITIES.built_in)
    mixture = {str(tmp_path / "a"): 1.0, str(tmp_path / "b"): 1.0}
    mixed = settings("", shards="", mixture=mixture)
    with pytest.raises(InputError, match=r"/b: sensor 'fine': expected mean .*data.sensors"):
        Mixture.open(mixed)
    MODALITIES.__init__(MODALITIES.built_in)
    chosen = tmp_path / "sensors.json"
    chosen.write_text(json.dumps({"sensors": [describe(mean=other)[0].to_json()]}))
    assert len(Mixture.open(replace(mixed, sensors=str(chosen)))) == 2
    assert MODALITIES["fine"].mean == other


def test_an_archive_describes_the_sensors_of_its_tiles(tmp_path):
    create_archive(tmp_path / "described", describe())
    write_tile(tmp_path / "described", fine_tile(0))
    create_archive(tmp_path / "plain")
    with pytest.raises(InputError, match="has the sensor 'fine', which the archive does not"):
        write_tile(tmp_path / "plain", fine_tile(0))
    MODALITIES.__init__(MODALITIES.built_in)  # as another process
    tile = read_tile(tmp_path / "described", "t0")
    assert tile.modalities == ["hr", "ms", "sar", "fine"]


def test_a_manifest_without_own_sensors_has_the_bytes_that_it_had(tmp_path):
    write_shards([make_tile("t", 0, cells=CELLS)], tmp_path)
    content = json.loads((tmp_path / "manifest.json").read_text())
    assert "sensors" not in content
    assert ShardDataset.open(tmp_path).manifest.sensors == []


def test_a_picture_shows_own_sensors_with_pixels_of_their_own(tmp_path):
    dataset(tmp_path)
    views = ViewSettings(global_pixels={"hr": 64, "ms": 12, "sar": 12})
    shown = with_own_sensors(DataSettings(shards=str(tmp_path), views=views))
    assert shown.views.sizes["global"].pixels == {"hr": 64, "ms": 12, "sar": 12, "fine": 48}
    chosen = replace(views, global_pixels={**views.global_pixels, "fine": 20})
    shown = with_own_sensors(DataSettings(shards=str(tmp_path), views=chosen))
    assert shown.views.global_pixels["fine"] == 20 and shown.frames["fine"] > 0
    assert draw_sample(shown, tmp_path / "t0.png", key="t0") == "t0, use 0"
    sides = {**shown.views.local_pixels, "fin": 8}
    wrong = replace(shown, views=replace(shown.views, local_pixels=sides))
    with pytest.raises(InputError, match=r"local_pixels.fin: no known sensor, .*'fine'"):
        draw_sample(wrong, tmp_path / "t0.png", key="t0")
