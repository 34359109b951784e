"""One manifest entry -> one co-registered tile, and the lines that say what was left out."""

import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.prepare.contract.blame import blamed_on
from data.prepare.contract.faults import (
    SCRAMBLED,
    drop_bad_frames,
    one_frame_a_day,
    poor_frames,
    scrambled_sar,
)
from data.prepare.contract.files import Remote
from data.prepare.contract.neighbours import join_neighbours
from data.prepare.contract.placement import tile_grid
from data.prepare.contract.source import Frames, Labels, Reader, Remark, main_file
from data.prepare.contract.units import check_units, offset_doubt
from data.prepare.manifest.entry import Entry
from data.prepare.place.grid import Grid
from data.tiles.check import check_tile
from data.tiles.modalities import MODALITIES
from data.tiles.tile import LABEL_PIXELS, UNLABELLED, Tile

MOST_NAMED = 5  # dropped frames whose shares a note tells
NO_PLACE = "(no place)"  # ends the provenance of a tile that lies nobody knows where


def build_tile(entry: Entry) -> tuple[Tile | None, list[str]]:
    """Read the sources of an entry and bring them onto one grid.

    Returns:
        The tile, None when its sources observed too little over it; and one line for every rejected
        source, series, frame group or tile, and for numbers that are doubtful.

    Raises:
        InputError: a source that cannot be read, whose numbers cannot be in the unit that they are
            taken for, or that contradicts another (no georeference, other pixels); or all that is
            there was dropped for its numbers.
    """
    notes: list[str] = []
    grid = tile_grid(entry.readers, entry.spot, entry.key)
    series: list[Frames] = []
    labels: list[Labels] = []
    sources = []
    for number, reader in enumerate(entry.readers):
        with blamed_on(main_file(reader)):
            items = reader.read(grid)
        name = main_file(reader).name
        for item in items:
            if isinstance(item, Remark):
                notes.append(f"sources[{number}] {name}: {item.text}")
                continue
            sources.append(provenance(reader, item.source, entry.folder))
            if isinstance(item, Frames):
                frames, doubts = check_units(item, reader)
                series.append(frames)
                notes += doubts
            else:
                labels.append(item)
        if not items:
            notes.append(f"sources[{number}] {name}: left out, has nothing over the tile")
    tile = _empty_tile(entry, grid, sources)
    for modality in MODALITIES:
        parts = [frames for frames in series if frames.modality == modality]
        if parts:
            _add_series(tile, _in_one_series(parts), grid, notes)
    if not tile.modalities:
        reasons = "; ".join(notes) or "the sources hold no images"
        if any(SCRAMBLED in note for note in notes):
            raise InputError(f"no usable modality left ({reasons})")
        return None, [*notes, f"tile rejected: no usable modality left ({reasons})"]
    if labels:
        tile.arrays["labels"] = draw_labels(labels, grid, notes)
    check_tile(tile)
    return tile, notes


def _empty_tile(entry: Entry, grid: Grid, sources: list[str]) -> Tile:
    """A tile without arrays.

    Args:
        entry: what the manifest says of it.
        grid: its cells.
        sources: what it is made from, see ``provenance``.
    """
    lon = lat = None
    if grid.has_place:
        lon, lat = grid.centre
    else:
        sources = [*sources, NO_PLACE]
    return Tile(
        key=entry.key,
        cells=grid.cells,
        crs=crs_name(grid),
        transform=tuple(grid.transform())[:6],
        lon=lon,
        lat=lat,
        source="; ".join(sources),
        licence=entry.licence,
        attribution=entry.attribution,
        split=entry.split,
    )


def provenance(reader: Reader, source: str, folder: Path) -> str:
    """What a tile records of a source: the place of its file from the manifest's folder.

    Files of other folders have the same name. An address stays whole, without its query.
    """
    file = main_file(reader)
    if isinstance(file, Remote):
        parent = file.partition("?")[0].rpartition("/")[0]
    else:
        parent = Path(os.path.relpath(file.parent, folder)).as_posix()
    if parent == ".":
        return source
    return f"{parent}/{source}"


def by_cell(frames: Frames, grid: Grid) -> Frames:
    """The mask of fine pixels as one of 10 m cells: a cell is valid when all its pixels are."""
    pixels = MODALITIES[frames.modality].pixels
    if pixels == 1:
        return frames
    shape = (len(frames.valid), grid.cells, pixels, grid.cells, pixels)
    blocks = frames.valid.reshape(shape)  # T n 32 n 32
    return replace(frames, valid=np.all(blocks, axis=(2, 4)))


def draw_labels(labels: list[Labels], grid: Grid, notes: list[str]) -> np.ndarray:
    """Draw all label sources on one raster.

    A later source lies over an earlier one where it has a label. A line is added to ``notes`` for
    one that has none.
    """
    side = grid.cells * LABEL_PIXELS
    raster = np.full((side, side), UNLABELLED, np.uint8)
    for layer in labels:
        with blamed_on(layer.source):
            drawn = layer.draw(grid)
        if (drawn == UNLABELLED).all():
            notes.append(f"labels: {layer.source} has no label for any pixel of the tile")
        raster = np.where(drawn == UNLABELLED, raster, drawn)
    return raster


def crs_name(grid: Grid) -> str:
    """'EPSG:n' where the CRS has a number, else WKT; empty for a grid without a place."""
    if not grid.has_place:
        return ""
    number = grid.crs.to_epsg()
    if number:
        return f"EPSG:{number}"
    return grid.crs.to_wkt()


def _in_one_series(parts: list[Frames]) -> Frames:
    """Several series of one sensor, all on the grid, as one."""
    dates = []
    times: list[datetime | None] = []
    for part in parts:
        dates += part.dates
        times += part.times or [None] * len(part.dates)
    return replace(
        parts[0],
        array=np.concatenate([part.array for part in parts]),
        valid=np.concatenate([part.valid for part in parts]),
        dates=dates,
        times=times,
    )


def _add_series(tile: Tile, frames: Frames, grid: Grid, notes: list[str]) -> None:
    """Apply the fault rules and put what is left into the tile; add a line for what is not."""
    modality = frames.modality
    joined = join_neighbours(frames)
    frames = joined.frames
    if joined.into_others:
        notes.append(
            f"{modality}: {joined.into_others} frames joined to others that cover another part"
        )
    if joined.strangers:
        days = ", ".join(joined.strangers[:MOST_NAMED])
        notes.append(
            f"{modality}: parts of {days} not joined, which may be of two passes; if they are of "
            "one, give their times ('date': '2020-05-03T17:32:00Z')"
        )
    if modality == "sar":
        fault = scrambled_sar(frames)
        if fault:
            notes.append(f"{modality}: {fault}")
            return
    doubt = offset_doubt(frames)
    if doubt:
        notes.append(doubt)
    total = len(frames.dates)
    by_pixel = frames
    frames = by_cell(frames, grid)
    shares = _shares_of_poor(frames, by_pixel)
    frames, poor = drop_bad_frames(frames)
    frames, repeated = one_frame_a_day(frames)
    if poor or repeated:
        notes.append(
            f"{modality}: {len(frames.dates)} of {total} frames kept; dropped {poor} with less "
            f"than half valid cells{shares}, {repeated} on a day that has a better one"
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


def _shares_of_poor(frames: Frames, by_pixel: Frames) -> str:
    """`` (2020-05-01: 12 %, 2020-06-02: 0 %)``, the valid shares of frames that will be dropped.

    Args:
        frames: the frames with the masks of their cells.
        by_pixel: the same with the masks of their pixels. Where a cell has many, one that is
            missing costs the cell, and both shares are told.
    """
    lines = []
    for i in poor_frames(frames):
        line = f"{frames.dates[i]}: {frames.valid[i].mean():.0%}"
        if frames.valid.shape != by_pixel.valid.shape:
            line += f" of the cells, {by_pixel.valid[i].mean():.1%} of the pixels"
        lines.append(line)
    if not lines:
        return ""
    if len(lines) > MOST_NAMED:
        lines[MOST_NAMED:] = [f"and {len(lines) - MOST_NAMED} more"]
    return f" ({', '.join(lines)})"


def _fullest_frame(frames: Frames, notes: list[str]) -> Frames:
    """The high-resolution frame with most valid cells: a tile has one, without a time axis."""
    best = int(frames.valid.sum(axis=(1, 2)).argmax())
    if len(frames.dates) > 1:
        notes.append(
            f"hr: the frame of {frames.dates[best]} kept of {len(frames.dates)}; a tile has one"
        )
    return frames.keep([best])
