"""One manifest entry -> one co-registered tile, and the lines that say what was left out."""

from dataclasses import replace

import numpy as np

from data.prepare.contract.faults import drop_bad_frames, one_frame_a_day, scrambled_sar
from data.prepare.contract.grid import Grid
from data.prepare.contract.placement import tile_grid
from data.prepare.contract.source import Frames, Labels, files_of
from data.prepare.manifest.entry import Entry
from data.tiles.check import check_tile
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED, Tile


def build_tile(entry: Entry) -> tuple[Tile | None, list[str]]:
    """Read the sources of an entry and bring them onto one grid.

    Returns:
        The tile, None when nothing usable is left; and one line for every rejected source, series,
        frame group or tile.

    Raises:
        InputError: a source that cannot be read, or that contradicts another (no georeference,
            other pixels).
    """
    notes: list[str] = []
    grid = tile_grid(entry.readers, entry.spot, entry.key)
    series: list[Frames] = []
    labels: list[Labels] = []
    sources = []
    for number, reader in enumerate(entry.readers):
        items = reader.read(grid)
        for item in items:
            sources.append(item.source)
            if isinstance(item, Frames):
                series.append(item)
            else:
                labels.append(item)
        if not items:
            name = files_of(reader)[0].name
            notes.append(f"sources[{number}] {name}: left out, has nothing over the tile")
    lon, lat = grid.centre
    tile = Tile(
        key=entry.key,
        cells=grid.cells,
        crs=crs_name(grid),
        transform=tuple(grid.transform())[:6],
        lon=lon,
        lat=lat,
        source="; ".join(sources),
        licence=entry.licence,
        attribution=entry.attribution,
    )
    for modality in MODALITIES:
        parts = [by_cell(frames, grid) for frames in series if frames.modality == modality]
        if parts:
            _add_series(tile, _joined(parts), notes)
    if not tile.modalities:
        return None, [*notes, "tile rejected: no usable modality left"]
    if labels:
        tile.arrays["labels"] = draw_labels(labels, grid)
    check_tile(tile)
    return tile, notes


def by_cell(frames: Frames, grid: Grid) -> Frames:
    """The mask of fine pixels as one of 10 m cells: a cell is valid when all its pixels are."""
    pixels = MODALITIES[frames.modality].pixels
    if pixels == 1:
        return frames
    shape = (len(frames.valid), grid.cells, pixels, grid.cells, pixels)
    blocks = frames.valid.reshape(shape)  # T n 32 n 32
    return replace(frames, valid=np.all(blocks, axis=(2, 4)))


def draw_labels(labels: list[Labels], grid: Grid) -> np.ndarray:
    """Draw all label sources on one raster.

    A later source lies over an earlier one where it has a label.
    """
    raster = labels[0].draw(grid)
    for layer in labels[1:]:
        drawn = layer.draw(grid)
        raster = np.where(drawn == UNLABELLED, raster, drawn)
    return raster


def crs_name(grid: Grid) -> str:
    """'EPSG:n' where the CRS has a number, else WKT."""
    number = grid.crs.to_epsg()
    if number:
        return f"EPSG:{number}"
    return grid.crs.to_wkt()


def _joined(parts: list[Frames]) -> Frames:
    """Several series of one sensor, all on the grid, as one."""
    dates = []
    for part in parts:
        dates += part.dates
    return replace(
        parts[0],
        array=np.concatenate([part.array for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
        dates=dates,
    )


def _add_series(tile: Tile, frames: Frames, notes: list[str]) -> None:
    """Apply the fault rules and put what is left into the tile; add a line for what is not."""
    modality = frames.modality
    if modality == "sar":
        fault = scrambled_sar(frames)
        if fault:
            notes.append(f"{modality}: {fault}")
            return
    total = len(frames.dates)
    frames, poor = drop_bad_frames(frames)
    frames, repeated = one_frame_a_day(frames)
    if poor or repeated:
        notes.append(
            f"{modality}: {len(frames.dates)} of {total} frames kept; dropped {poor} with less "
            f"than half valid pixels, {repeated} on a day that has a better one"
        )
    if not frames.dates:
        notes.append(f"{modality}: series dropped: no frame left")
        return
    array = frames.array
    if modality == "hr":
        frames = _fullest_frame(frames, notes)
        array = frames.array[0]  # 3 32n 32n
    tile.arrays[modality] = array
    tile.valid[modality] = frames.valid
    tile.dates[modality] = frames.dates


def _fullest_frame(frames: Frames, notes: list[str]) -> Frames:
    """The high-resolution frame with most valid cells: a tile has one, without a time axis."""
    best = int(frames.valid.sum(axis=(1, 2)).argmax())
    if len(frames.dates) > 1:
        notes.append(
            f"hr: the frame of {frames.dates[best]} kept of {len(frames.dates)}; a tile has one"
        )
    return frames.keep([best])
