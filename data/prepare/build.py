"""One manifest entry -> one co-registered tile, and the lines that say what was left out."""

import numpy as np

from data.archive import check_tile
from data.errors import InputError
from data.modalities import MODALITIES
from data.prepare.faults import drop_bad_frames, one_frame_a_day, scrambled_sar
from data.prepare.grid import Grid, grid_inside, grid_of_pixels, resample
from data.prepare.manifest import Entry
from data.prepare.source import Frames
from data.tile import UNLABELLED, Tile


def build_tile(entry: Entry) -> tuple[Tile | None, list[str]]:
    """The tile, or None when nothing usable is left, with one line for every rejected series, frame group or tile.

    Raises InputError when sources contradict each other (no georeference at all, other pixel counts)."""
    notes: list[str] = []
    found = [item for reader in entry.readers for item in reader.read()]
    series = [item for item in found if isinstance(item, Frames)]
    labels = [item for item in found if not isinstance(item, Frames)]
    grid = choose_grid(series, entry.key)
    lon, lat = grid.centre
    tile = Tile(key=entry.key, cells=grid.cells, crs=crs_name(grid), transform=tuple(grid.transform())[:6],
                lon=lon, lat=lat, source="; ".join(item.source for item in found), licence=entry.licence,
                attribution=entry.attribution)
    for modality in MODALITIES:
        parts = [on_grid(frames, grid, entry.key) for frames in series if frames.modality == modality]
        if parts:
            _add_series(tile, _joined(parts), notes)
    if not tile.modalities:
        return None, [*notes, "tile rejected: no usable modality left"]
    if labels:
        tile.arrays["labels"] = draw_labels(labels, grid)
    check_tile(tile)
    return tile, notes


def choose_grid(series: list[Frames], key: str) -> Grid:
    """The tile's 10 m grid: Sentinel pixels that form one already; else whole cells inside the first raster."""
    placed = [frames for frames in series if frames.crs is not None]
    if not placed:
        raise InputError(f"tile {key!r}: no source says where it lies; add a georeferenced raster")
    for frames in placed:
        grid = grid_of_pixels(frames.transform, frames.crs, frames.array.shape[-2:])
        if frames.modality != "hr" and grid:
            return grid
    first = placed[0]
    try:
        return grid_inside(first.transform, first.crs, first.array.shape[-2:])
    except InputError as error:
        raise InputError(f"tile {key!r}: {first.source}: {error}") from None


def on_grid(frames: Frames, grid: Grid, key: str) -> Frames:
    """A series on the grid's pixels of its sensor; the mask of fine pixels becomes one of 10 m cells."""
    pixels = MODALITIES[frames.modality].pixels
    if frames.crs is None:
        side = grid.cells * pixels
        if frames.array.shape[-2:] != (side, side):
            raise InputError(f"tile {key!r}: {frames.source} has no georeference and {frames.array.shape[-2:]} pixels; "
                             f"expected the tile's {(side, side)}")
        array, valid = frames.array, frames.valid
    else:
        array, valid = resample(frames.array, frames.valid, frames.transform, frames.crs, grid, pixels)
    if pixels > 1:  # T 32n 32n -> T n n: a cell is valid when all its pixels are
        valid = valid.reshape(len(valid), grid.cells, pixels, grid.cells, pixels).all(axis=(2, 4))
    return Frames(frames.modality, array, valid, frames.dates, grid.transform(pixels), grid.crs, frames.source)


def draw_labels(labels: list, grid: Grid) -> np.ndarray:
    """All label sources on one raster; a later source lies over an earlier one where it has a label."""
    raster = labels[0].draw(grid)
    for layer in labels[1:]:
        drawn = layer.draw(grid)
        raster = np.where(drawn == UNLABELLED, raster, drawn)
    return raster


def crs_name(grid: Grid) -> str:
    """'EPSG:n' where there is a number, else WKT."""
    number = grid.crs.to_epsg()
    return f"EPSG:{number}" if number else grid.crs.to_wkt()


def _joined(parts: list[Frames]) -> Frames:
    """Several series of one sensor, all on the grid, as one."""
    first = parts[0]
    return Frames(first.modality, np.concatenate([part.array for part in parts]),
                  np.concatenate([part.valid for part in parts]), [day for part in parts for day in part.dates],
                  first.transform, first.crs, first.source)


def _add_series(tile: Tile, frames: Frames, notes: list[str]) -> None:
    """Apply the fault rules and put what is left into the tile."""
    fault = scrambled_sar(frames) if frames.modality == "sar" else None
    if fault:
        notes.append(f"{frames.modality}: {fault}")
        return
    total = len(frames.dates)
    frames, poor = drop_bad_frames(frames)
    frames, repeated = one_frame_a_day(frames)
    if poor or repeated:
        notes.append(f"{frames.modality}: {len(frames.dates)} of {total} frames kept; dropped {poor} with less than "
                     f"half valid pixels, {repeated} on a day that has a better one")
    if not frames.dates:
        notes.append(f"{frames.modality}: series dropped: no frame left")
        return
    array = frames.array
    if frames.modality == "hr":  # a tile has one, without a time axis: 3 32n 32n
        best = int(frames.valid.sum(axis=(1, 2)).argmax())
        if len(frames.dates) > 1:
            notes.append(f"hr: the frame of {frames.dates[best]} kept of {len(frames.dates)}; a tile has one")
        frames = frames.keep([best])
        array = frames.array[0]
    tile.arrays[frames.modality], tile.valid[frames.modality] = array, frames.valid
    tile.dates[frames.modality] = frames.dates
