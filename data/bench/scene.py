"""A full-size sample from the tiles of an archive, so that codecs are measured on real pixels."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.tiles.archive import read_tile, tile_keys
from data.tiles.modalities import HR_PIXELS
from data.tiles.tile import LABEL_PIXELS, Tile


@dataclass(frozen=True)
class Scene:
    """One sample, N cells a side, channels last where images want them."""

    hr: np.ndarray  # 32N 32N 3 uint8
    ms: np.ndarray  # T 10 N N uint16
    ms_valid: np.ndarray  # T N N bool
    sar: np.ndarray  # T 2 N N float32 dB
    labels: np.ndarray  # 8N 8N uint8


def load_scene(
    archive: str | Path, seed: int, cells: int = 64, *, frames: tuple[int, int] = (65, 13)
) -> Scene:
    """Put one sample together from all tiles of an archive.

    High-resolution image and labels are mosaics of all tiles. The series are those of the largest
    tile.

    Args:
        archive: Archive of tiles.
        seed: Seed of the mosaics.
        cells: Side of the sample in 10 m cells.
        frames: Frames of ms and of sar.

    Raises:
        InputError: The archive lacks a sensor or labels.
    """
    tiles = [read_tile(archive, key) for key in tile_keys(archive)]
    images = [_valid_part(tile).transpose(1, 2, 0) for tile in tiles if "hr" in tile.arrays]
    labels = [tile.arrays["labels"][..., None] for tile in tiles if "labels" in tile.arrays]
    series = [tile for tile in tiles if {"ms", "sar"} <= tile.arrays.keys()]
    if not images or not series or not labels:
        raise InputError(
            f"{archive}: expected tiles with hr, with labels, and with both ms and sar, found "
            f"{len(images)}, {len(labels)} and {len(series)}; prepare data/samples/manifest.jsonl"
        )
    best = max(series, key=lambda tile: (tile.cells, tile.key))
    ms_frames, sar_frames = frames
    rng = np.random.default_rng(seed)
    return Scene(
        hr=mosaic(images, HR_PIXELS * cells, rng),
        ms=_frames(_grown(best.arrays["ms"], cells), ms_frames),
        ms_valid=_frames(_grown(best.valid["ms"], cells), ms_frames),
        sar=_spread(_grown(best.arrays["sar"], cells), sar_frames),
        labels=mosaic(labels, LABEL_PIXELS * cells, rng)[..., 0],
    )


def _valid_part(tile: Tile) -> np.ndarray:
    """The high-resolution image without outer rows and columns of cells that hold no data.

    Returns:
        3 h w uint8.
    """
    mask = tile.valid["hr"][0]  # N N
    p = HR_PIXELS
    y = np.flatnonzero(mask.mean(1) > 0.5)
    x = np.flatnonzero(mask.mean(0) > 0.5)
    return tile.arrays["hr"][:, y[0] * p : (y[-1] + 1) * p, x[0] * p : (x[-1] + 1) * p]


def mosaic(images: list[np.ndarray], side: int, rng: np.random.Generator) -> np.ndarray:
    """Cover a square with images laid edge to edge: list of h w C uint8 -> side side C uint8.

    All eight mirrored and turned forms of each image are used before one comes again, so that a
    codec with a long memory finds nothing twice that a real tile would not have.
    """
    forms = []
    for number in range(len(images)):
        for form in range(8):
            forms.append((number, form))
    out = np.zeros((side, side, images[0].shape[2]), np.uint8)
    free = np.ones((side, side), bool)
    while free.any():
        for number, form in rng.permutation(forms):
            image = np.rot90(images[number], form % 4)
            if form >= 4:
                image = image[:, ::-1]
            y, x = divmod(int(free.argmax()), side)
            height = min(len(image), side - y)
            width = min(image.shape[1], side - x)
            hole = free[y : y + height, x : x + width]
            out[y : y + height, x : x + width][hole] = image[:height, :width][hole]
            hole[:] = False
            if not free.any():
                break
    return out


def _grown(array: np.ndarray, side: int) -> np.ndarray:
    """Cut the last two axes to ``side``, or extend them by mirroring."""
    height, width = array.shape[-2:]
    missing = [(0, 0)] * (array.ndim - 2)
    missing += [(0, max(0, side - height)), (0, max(0, side - width))]
    return np.ascontiguousarray(np.pad(array, missing, mode="symmetric")[..., :side, :side])


def _frames(array: np.ndarray, count: int) -> np.ndarray:
    """The first ``count`` frames; missing ones are the last ones again, mirrored left-right."""
    missing = max(0, count - len(array))
    mirrored = array[len(array) - missing :, ..., ::-1]
    return np.ascontiguousarray(np.concatenate([array, mirrored])[:count])


def _spread(array: np.ndarray, count: int) -> np.ndarray:
    """``count`` frames at equal distances, each once; fewer are filled as in ``_frames``."""
    chosen = np.linspace(0, len(array) - 1, min(count, len(array))).round().astype(int)
    return _frames(array[chosen], count)
