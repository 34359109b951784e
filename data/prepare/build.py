"""One manifest entry -> one co-registered tile, and the lines that say what was left out."""

import numpy as np

from data.errors import InputError
from data.prepare.contract.faults import drop_bad_frames, one_frame_a_day, scrambled_sar
from data.prepare.contract.grid import MOST_CELLS, Grid, grid_inside, grid_of_pixels, on_earth
from data.prepare.contract.source import Frames, Reader, files_of
from data.prepare.manifest.read import Entry
from data.tiles.archive import check_tile
from data.tiles.modalities import MODALITIES
from data.tiles.tile import UNLABELLED, Tile


def build_tile(entry: Entry) -> tuple[Tile | None, list[str]]:
    """The tile, or None when nothing usable is left, with one line for every rejected source,
    series, frame group or tile.

    Raises InputError for a source that cannot be read or that contradicts another (no georeference,
    other pixels)."""
    notes: list[str] = []
    grid = entry.spot.grid() if entry.spot else choose_grid(entry.readers, entry.key)
    if grid.cells > MOST_CELLS:
        raise InputError(
            f"tile {entry.key!r}: {grid.cells} x {grid.cells} cells, the most is {MOST_CELLS}; say which "
            "part with 'centre' and 'cells', or with 'footprint'"
        )
    found = []
    for number, reader in enumerate(entry.readers):
        items = reader.read(grid)
        found += items
        if not items:
            notes.append(
                f"sources[{number}] {files_of(reader)[0].name}: left out, has nothing over the tile"
            )
    series = [item for item in found if isinstance(item, Frames)]
    labels = [item for item in found if not isinstance(item, Frames)]
    lon, lat = grid.centre
    tile = Tile(
        key=entry.key,
        cells=grid.cells,
        crs=crs_name(grid),
        transform=tuple(grid.transform())[:6],
        lon=lon,
        lat=lat,
        source="; ".join(item.source for item in found),
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


def choose_grid(readers: tuple[Reader, ...], key: str) -> Grid:
    """The tile's 10 m grid: Sentinel pixels that form one already; else whole cells inside the
    first raster."""
    placed = [
        (reader, place)
        for reader in readers
        if (place := reader.place()) and place.modality is not None
    ]
    if not placed:
        raise InputError(
            f"tile {key!r}: no source says where it lies; add a georeferenced raster, or 'centre' and "
            "'cells'"
        )
    for reader, place in placed:
        left, top = place.transform @ (0, 0)
        right, bottom = place.transform @ place.shape[::-1]
        if not on_earth(place.crs, left, bottom, right, top):
            raise InputError(
                f"tile {key!r}: {files_of(reader)[0].name}: its corners ({left:g}, {top:g}) and "
                f"({right:g}, {bottom:g}) are nowhere in its CRS; correct the file's georeference"
            )
    for _, place in placed:
        grid = grid_of_pixels(place.transform, place.crs, place.shape)
        if place.modality != "hr" and grid:
            return grid
    reader, place = placed[0]
    try:
        return grid_inside(place.transform, place.crs, place.shape)
    except InputError as error:
        raise InputError(f"tile {key!r}: {files_of(reader)[0].name}: {error}") from None


def by_cell(frames: Frames, grid: Grid) -> Frames:
    """The mask of fine pixels as one of 10 m cells: a cell is valid when all its pixels are."""
    pixels = MODALITIES[frames.modality].pixels
    if pixels == 1:
        return frames
    blocks = frames.valid.reshape(
        len(frames.valid), grid.cells, pixels, grid.cells, pixels
    )  # T n 32 n 32
    return Frames(
        frames.modality, frames.array, blocks.all(axis=(2, 4)), frames.dates, frames.source
    )


def draw_labels(labels: list, grid: Grid) -> np.ndarray:
    """All label sources on one raster; a later source lies over an earlier one where it has a
    label."""
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
    return Frames(
        first.modality,
        np.concatenate([part.array for part in parts]),
        np.concatenate([part.valid for part in parts]),
        [day for part in parts for day in part.dates],
        first.source,
    )


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
        notes.append(
            f"{frames.modality}: {len(frames.dates)} of {total} frames kept; dropped {poor} with less than "
            f"half valid pixels, {repeated} on a day that has a better one"
        )
    if not frames.dates:
        notes.append(f"{frames.modality}: series dropped: no frame left")
        return
    array = frames.array
    if frames.modality == "hr":  # a tile has one, without a time axis: 3 32n 32n
        best = int(frames.valid.sum(axis=(1, 2)).argmax())
        if len(frames.dates) > 1:
            notes.append(
                f"hr: the frame of {frames.dates[best]} kept of {len(frames.dates)}; a tile has one"
            )
        frames = frames.keep([best])
        array = frames.array[0]
    tile.arrays[frames.modality], tile.valid[frames.modality] = array, frames.valid
    tile.dates[frames.modality] = frames.dates
