"""What the readers of raster files share: places, windows and code masks."""

from collections.abc import Sequence

import numpy as np
import rasterio
from rasterio.enums import MaskFlags
from rasterio.windows import Window as RasterWindow

from data.errors import InputError
from data.prepare.contract.bands import band_number
from data.prepare.contract.files import File, need_crs, need_upright, open_raster
from data.prepare.contract.source import Place
from data.prepare.place.georeference import Georeference, without_heights, without_noise
from data.prepare.place.grid import Grid
from data.prepare.place.resample import resample_labels
from data.prepare.place.window import Window

NO_CODE = -1  # in a raster of codes: outside the source
UNCHANGED = (1.0, 0.0)  # scale and offset of numbers that mean what they are


def place_of(dataset: rasterio.DatasetReader, modality: str | None) -> Place:
    """The place of an open raster."""
    transform = without_noise(dataset.transform, dataset.shape)
    return Place(modality, Georeference(transform, without_heights(dataset.crs)), dataset.shape)


def need_one_image(dataset: rasterio.DatasetReader, path: File) -> None:
    """Raise InputError for a file of several images, of which GDAL would give the first or none."""
    if len(dataset.subdatasets) > 1 or (dataset.subdatasets and not dataset.count):
        raise InputError(
            f"{path}: expected one image, found {len(dataset.subdatasets)}; split the file first "
            f"(gdal_translate {dataset.subdatasets[0]} ...), or use the reader of its format"
        )


def check_place(dataset: rasterio.DatasetReader, path: File) -> None:
    """Raise InputError unless the raster has upright pixels and a CRS."""
    need_transform(dataset, path)
    need_crs(path, dataset.crs)
    need_upright(path, place_of(dataset, None).georeference.transform)


def need_transform(dataset: rasterio.DatasetReader, path: File) -> None:
    """Raise InputError for a raster that says in another way where it lies."""
    points, _ = dataset.gcps
    if dataset.crs is None and (points or dataset.rpcs):
        kind = f"{len(points)} ground control points"
        if not points:
            kind = "rational polynomials (RPC)"
        raise InputError(
            f"{path}: expected a CRS and a transform, found {kind}; warp the file first (gdalwarp)"
        )


def pixels_of(window: Window) -> RasterWindow:
    """The window as rasterio wants it."""
    return RasterWindow.from_slices(window.rows, window.columns)


def stored_mask(
    dataset: rasterio.DatasetReader, numbers: Sequence[int], window: Window
) -> np.ndarray:
    """The mask that a file has inside or beside it (.msk) for some bands, bool (H, W)."""
    valid = np.ones(window.shape, bool)
    for number in numbers:
        flags = set(dataset.mask_flag_enums[number - 1])
        if flags & {MaskFlags.all_valid, MaskFlags.alpha} or flags == {MaskFlags.nodata}:
            continue  # opacity and numbers of no observation are read elsewhere
        valid &= dataset.read_masks(number, window=pixels_of(window)) > 0
        if MaskFlags.per_dataset in flags:
            break
    return valid


def codes_on_grid(
    path: File, grid: Grid, *, pixels: int, band: str | int = ""
) -> np.ndarray | None:
    """Codes of a raster on the grid, by nearest neighbour.

    Args:
        path: the raster.
        grid: the tile's grid.
        pixels: pixels along a cell of the grid.
        band: the name or number of its band of codes; empty: the only one.

    Returns:
        Codes (h, h) with h = ``grid.cells * pixels``, ``NO_CODE`` outside the raster and where it
        has none. None when the raster does not touch the grid.
    """
    with open_raster(path) as dataset:
        window = place_of(dataset, None).window(grid)
        if window is None:
            return None
        number = band_of_codes(dataset, path, band)
        raw = dataset.read(number, window=pixels_of(window))  # H W
        codes = _codes(raw, dataset.nodatavals[number - 1])  # H W
    return resample_labels(codes, window.georeference, grid, pixels=pixels, fill=NO_CODE)


def band_of_codes(
    dataset: rasterio.DatasetReader, path: File, band: str | int = "", *, key: str = "mask_band"
) -> int:
    """The number of the band of a raster that holds codes, from 1.

    Args:
        dataset: the raster, open.
        path: of the raster, for errors.
        band: its name or number; empty: the only one.
        key: of the manifest that says it, for errors; empty: there is none.

    Raises:
        InputError: there is no such band, or several could be it, or it holds no codes.
    """
    number = 1
    if band != "":
        number = _named_band(dataset, path, band)
    elif dataset.count != 1:
        remedy = ""
        if key:
            remedy = f"; say which with {key!r}, its name or number"
        raise InputError(
            f"{path}: expected one band of codes, found {dataset.count} of {dataset.dtypes[0]}"
            f"{remedy}"
        )
    dtype = dataset.dtypes[number - 1]
    if np.dtype(dtype).kind not in "iuf":
        raise InputError(f"{path}: expected a band of codes, found {dtype}")
    scale, offset = scale_and_offset(dataset, number, where=f"{path}: band {number}")
    if (scale, offset) != UNCHANGED:
        raise InputError(
            f"{path}: band {number}: expected codes, found the tags scale {scale:g} and offset "
            f"{offset:g} of a quantity; remove them if the stored numbers are the codes "
            "(gdal_edit -unsetscale -unsetoffset)"
        )
    return number


def scale_and_offset(
    dataset: rasterio.DatasetReader, number: int, *, where: str
) -> tuple[float, float]:
    """Scale and offset that a file says of a band, as GDAL's tags or as text of CF files.

    Args:
        dataset: the file, open.
        number: of the band, from 1.
        where: file and band, for errors.

    Returns:
        ``UNCHANGED`` where it says nothing.

    Raises:
        InputError: a text that is no number.
    """
    tags = (dataset.scales[number - 1], dataset.offsets[number - 1])
    if tags != UNCHANGED:
        return tags
    texts = {name.lower(): text for name, text in dataset.tags().items()}
    texts.update({name.lower(): text for name, text in dataset.tags(number).items()})
    scale = number_of_tag(texts, "scale_factor", default=1.0, where=where)
    offset = number_of_tag(texts, "add_offset", default=0.0, where=where)
    return scale, offset


def number_of_tag(texts: dict[str, str], name: str, *, default: float, where: str) -> float:
    """A tag that is text as a number; ``default`` where there is none."""
    try:
        return float(texts.get(name, default))
    except ValueError:
        raise InputError(
            f"{where}: the file's tag {name} {texts[name]!r}: expected a number; correct the tag"
        ) from None


def _named_band(dataset: rasterio.DatasetReader, path: File, band: str | int) -> int:
    """The number of the band that has a name, or a number, which tables give as text."""
    names = [(name or "").lower() for name in dataset.descriptions]
    numbers = [i for i, name in enumerate(names, 1) if name == str(band).lower()]
    number = band_number(band)
    if not numbers and number is not None and 1 <= number <= dataset.count:
        return number
    if len(numbers) != 1:
        raise InputError(
            f"{path}: no band {band!r} of codes; expected one of {list(dataset.descriptions)}, or "
            f"a number from 1 to {dataset.count}"
        )
    return numbers[0]


def _codes(raw: np.ndarray, nodata: float | None) -> np.ndarray:
    """Numbers (H, W) of any type -> int32 (H, W), ``NO_CODE`` for those that are no code.

    A nodata of 0 stays a code: masks of 0 and 1 often carry it.
    """
    limits = np.iinfo(np.int32)
    is_code = (raw >= limits.min) & (raw <= limits.max) & (raw == np.rint(raw))  # false for NaN
    if nodata:
        is_code &= raw != nodata
    return np.where(is_code, raw, NO_CODE).astype(np.int32)
