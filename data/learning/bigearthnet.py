"""Windows of BigEarthNet v2: Sentinel-1 and -2 with a class of CORINE Land Cover for each pixel.

``root`` holds ``patch_NNNNNN.npz``: ``s1`` float32 2 x 120 x 120 (VV, VH in dB), ``s2`` uint16
4 x 120 x 120 (B02, B03, B04, B08, reflectance x 1e4), ``clc`` 120 x 120, codes of level 3. NNNNNN
is the row of the patch in the table of the data set, whose neighbours come from one scene.
"""

import json
import re
from pathlib import Path

import numpy as np

from data.errors import InputError
from data.files import write_whole
from data.learning.tiles import LabelledTile, write_tiles
from data.tiles.splits import TEST, TRAIN

SIDE = 24  # pixels of 10 m along a window
SHARE = 0.9  # of a window's pixels that have its class
SENSORS = "sensors.json"
S2_BANDS = ("B02", "B03", "B04", "B08")
# Rows of the table that stay on one side: about a scene. The fourth of each four is for the test.
BLOCK_ROWS = 40_000
BLOCKS = 4
# By the first digits of the code.
CLASSES = {
    "1": "built-up",
    "21": "arable land",
    "22": "permanent crops",
    "23": "pasture",
    "24": "mixed agriculture",
    "311": "broad-leaved forest",
    "312": "coniferous forest",
    "313": "mixed forest",
    "32": "shrub and grassland",
    "4": "wetland",
    "5": "water",  # of 240 m of it nobody can say whether it is a lake or the sea
}
# Names of the project's table of classes, for the alignment with text.
LEGEND = {
    "111": "residential area",
    "112": "residential area",
    "121": "industrial area",
    "142": "park",
    "211": "cropland",
    "212": "cropland",
    "213": "rice field",
    "221": "vineyard",
    "222": "orchard",
    "223": "orchard",
    "231": "grassland",
    "241": "cropland",
    "242": "cropland",
    "243": "cropland",
    "311": "deciduous forest",
    "312": "coniferous forest",
    "313": "forest",
    "321": "grassland",
    "322": "shrubland",
    "323": "shrubland",
    "324": "shrubland",
    "411": "wetland",
    "412": "wetland",
    "511": "water",
    "512": "water",
    "523": "water",
}
TEN_METRES = {
    "key": "s2_10m",
    "title": "Sentinel-2, the bands of 10 m",
    "gsd": 10,
    "unit": "reflectance x 1e4",
    "bands": list(S2_BANDS),
    "dtype": "uint16",
    "nodata": 0,
    "display": {"true_colour": ["B04", "B03", "B02"], "least_span": 400},
}


def write(root: Path, folder: Path) -> None:
    """Write manifest, labels, a sensors file and the windows of the patches into ``folder``.

    Raises:
        InputError: there are no patches, or one is damaged.
    """
    paths = sorted(root.glob("patch_*.npz"))
    if not paths:
        raise InputError(f"{root}: expected files patch_NNNNNN.npz, found none; check the folder")
    windows = folder / "windows"
    windows.mkdir(parents=True, exist_ok=True)
    tiles = []
    trained = []
    for path in paths:
        tiles += _tiles(path, windows)
        if tiles[-1].split == TRAIN:
            trained.append(path)
    sensor = {**TEN_METRES, **_statistics(trained)}
    write_whole(folder / SENSORS, json.dumps({"sensors": [sensor]}, indent=1))
    write_tiles(
        tiles,
        folder,
        licence="CDLA-Permissive-1.0",
        attribution="BigEarthNet v2.0; contains modified Copernicus Sentinel data 2017-2018",
    )


def _statistics(paths: list[Path]) -> dict[str, list[float]]:
    """Mean and deviation of the bands of Sentinel-2 over some patches."""
    bands = []
    for path in paths:
        with np.load(path) as arrays:
            bands.append(arrays["s2"].reshape(len(S2_BANDS), -1).astype(np.float64))  # 4 HW
    pixels = np.concatenate(bands, 1)  # 4 n
    return {"mean": pixels.mean(1).round(3).tolist(), "std": pixels.std(1).round(3).tolist()}


def _tiles(path: Path, windows: Path) -> list[LabelledTile]:
    """Cut a patch into windows, beginning at its upper left corner."""
    match = re.fullmatch(r"patch_(\d+)", path.stem)
    if match is None:
        raise InputError(f"{path}: expected a name patch_NNNNNN.npz")
    split = TRAIN
    if int(match[1]) // BLOCK_ROWS % BLOCKS == BLOCKS - 1:
        split = TEST
    with np.load(path) as arrays:
        s1 = arrays["s1"]  # 2 H W
        s2 = arrays["s2"]  # 4 H W
        codes = arrays["clc"]  # H W
    tiles = []
    for row in range(0, codes.shape[0] - SIDE + 1, SIDE):
        for column in range(0, codes.shape[1] - SIDE + 1, SIDE):
            area = (..., slice(row, row + SIDE), slice(column, column + SIDE))
            key = f"{path.stem}-r{row // SIDE}-c{column // SIDE}"
            target = windows / f"{key}.npz"
            np.savez(target, s1=s1[area], s2=s2[area], clc=codes[area])
            tile = LabelledTile(
                key=key,
                split=split,
                label=label_of(codes[area]),
                group=path.stem,
                sources=_sources(target),
            )
            tiles.append(tile)
    return tiles


def label_of(codes: np.ndarray) -> str | None:
    """The class that at least ``SHARE`` of the pixels (H, W) have, or None."""
    values, counts = np.unique(codes, return_counts=True)
    pixels: dict[str, int] = {}
    for value, count in zip(values, counts):
        name = class_of(int(value))
        if name is not None:
            pixels[name] = pixels.get(name, 0) + int(count)
    for name, count in pixels.items():
        if count >= SHARE * codes.size:
            return name
    return None


def class_of(code: int) -> str | None:
    """The class of a CORINE code, or None."""
    for digits, name in CLASSES.items():
        if str(code).startswith(digits):
            return name
    return None


def _sources(path: Path) -> list[dict]:
    common = {"reader": "patch", "path": str(path.resolve()), "gsd": 10}
    return [
        {**common, "array": "s2", "modality": TEN_METRES["key"], "bands": list(S2_BANDS)},
        {**common, "array": "s1", "modality": "sar", "bands": ["VV", "VH"]},
        {**common, "reader": "patch_labels", "array": "clc", "legend": LEGEND},
    ]
