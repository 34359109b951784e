"""A whole preparation run: check everything, build in a folder beside the target, publish with one rename."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from data.archive import check_writable, create_archive, write_tile
from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.manifest import Entry, read_manifest
from data.tile import UNLABELLED, Tile

REPORT = "report.json"


def prepare(manifest: str | Path, out: str | Path, overwrite: bool = False,
            say: Callable[[str], None] = print) -> dict:
    """Make the archive ``out`` from a manifest and return its report, which is also stored as report.json in it.

    ``say`` takes progress and one line for each rejected thing. Raises InputError before ``out`` is touched: an old
    archive is replaced only by a complete new one, and a killed run leaves at most ``<out>.partial``."""
    out = Path(out)
    check_writable(out, overwrite)
    entries = read_manifest(manifest)
    for entry in entries:
        for reader in entry.readers:
            reader.check()
    staging = create_archive(out.with_name(out.name + ".partial"), overwrite=True)
    try:
        report = _fill(staging, entries, say)
        (staging / REPORT).write_text(json.dumps(report, indent=1) + "\n")
    except BaseException:  # also Ctrl-C: whatever the reason, the half-made archive must go
        shutil.rmtree(staging)
        raise
    if out.exists():
        shutil.rmtree(out)
    os.rename(staging, out)
    return report


def _fill(archive: Path, entries: list[Entry], say: Callable[[str], None]) -> dict:
    """Build and write every tile."""
    tiles, rejected = [], []
    for number, entry in enumerate(entries, 1):
        tile, notes = build_tile(entry)
        for note in notes:
            say(f"  {entry.key}: {note}")
        if tile is None:
            rejected.append({"key": entry.key, "notes": notes})
            continue
        write_tile(archive, tile)
        tiles.append({**summary(tile), "notes": notes})
        say(f"[{number}/{len(entries)}] {_line(tiles[-1])}")
    if not tiles:
        raise InputError("no tile is usable; the lines above say why")
    return {"tiles": tiles, "rejected": rejected}


def summary(tile: Tile) -> dict:
    """What a report says of one tile."""
    labels = tile.arrays.get("labels")
    return {
        "key": tile.key, "cells": tile.cells, "lon": round(tile.lon, 6), "lat": round(tile.lat, 6), "crs": tile.crs,
        "frames": {name: len(tile.dates[name]) for name in tile.modalities},
        "valid": {name: round(float(tile.valid[name].mean()), 4) for name in tile.modalities},
        "labelled": None if labels is None else round(float((labels != UNLABELLED).mean()), 4),
    }


def _line(record: dict) -> str:
    """A summary as one line of progress."""
    frames = ", ".join(f"{name} {count}" for name, count in record["frames"].items())
    labelled = "no labels" if record["labelled"] is None else f"{record['labelled']:.0%} labelled"
    return f"{record['key']}: {record['cells']} x {record['cells']} cells, frames {frames}, {labelled}"
