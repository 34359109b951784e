"""How the files of a source are opened, and which of them are refused."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from pathlib import Path, PurePosixPath
from typing import Any

import h5py
import numpy as np
import rasterio
import zarr
from affine import Affine
from rasterio.crs import CRS
from rasterio.errors import NotGeoreferencedWarning, RasterioIOError

from data.errors import InputError
from data.prepare.contract.arrays import Arrays
from data.prepare.contract.blame import is_of_library, words_of
from data.prepare.contract.formats import TIFF, other_format
from data.prepare.contract.orientation import UPRIGHT, orientation_of
from data.prepare.place.georeference import has_place

# Read at once, a PNG that is cut off or damaged is arbitrary pixels without an error (GDAL 3.10).
STRICT = {"GDAL_PNG_WHOLE_IMAGE_OPTIM": "NO"}
# Of these our own code alone can be the reason, even while it handles what a library has given.
BUGS = (AssertionError, AttributeError, NameError, NotImplementedError)


class Remote(str):
    """The address of a file outside this file system: a URL, or a path of GDAL (/vsicurl/...)."""

    @property
    def name(self) -> str:
        """The last part, as of a Path, without a query: a signed address ends with a secret."""
        return PurePosixPath(self.partition("?")[0]).name


File = Path | Remote
Opener = Callable[[File], Any]


class _OpenFiles(ExitStack):
    """Files that stay open until the end of a ``with`` block."""

    def __init__(self) -> None:
        super().__init__()
        self._handles: dict[tuple[Opener, File], Any] = {}

    def get(self, opener: Opener, path: File) -> Any:
        """The open file at ``path``, opened now if it is asked for the first time."""
        key = (opener, path)
        if key not in self._handles:
            self._handles[key] = self.enter_context(opener(path))
        return self._handles[key]


_open_files: ContextVar[_OpenFiles | None] = ContextVar("open_files", default=None)


@contextmanager
def files_kept_open() -> Iterator[None]:
    """Inside, ``open_raster`` and ``open_hdf5`` open each file once and close it at the end.

    The sources of a tile are checked, placed and read one after the other. Without this each step
    would open the same files again.
    """
    with _OpenFiles() as files:
        token = _open_files.set(files)
        try:
            yield
        finally:
            _open_files.reset(token)


@contextmanager
def _opened(opener: Opener, path: File) -> Iterator[Any]:
    """The open file at ``path``; closed at the end unless files are kept open."""
    files = _open_files.get()
    if files is not None:
        yield files.get(opener, path)
        return
    with opener(path) as file:
        yield file


@contextmanager
def open_raster(path: File) -> Iterator[rasterio.DatasetReader]:
    """An open rasterio dataset.

    Raises:
        InputError: the file is missing, is no raster, or proves damaged while it is read.
    """
    need_file(path)
    with reading(path, "a raster file"), rasterio.Env(**STRICT), _opened(_raster, path) as dataset:
        yield dataset


@contextmanager
def open_hdf5(path: File) -> Iterator[h5py.File]:
    """An open h5py file.

    Raises:
        InputError: the file is missing, is no HDF5 file, is open in another program, or proves
            damaged while it is read.
    """
    need_file(path)
    with reading(path, "an HDF5 file"), _opened(_hdf5_file, path) as file:
        yield file


@contextmanager
def open_picture(path: File) -> Iterator[rasterio.DatasetReader]:
    """An open rasterio dataset that need not say where it lies.

    Raises:
        InputError: see ``open_raster``.
    """
    need_file(path)
    with reading(path, "a picture"), rasterio.Env(**STRICT), _opened(_picture, path) as dataset:
        yield dataset


@contextmanager
def open_arrays(path: Path) -> Iterator[Arrays]:
    """The arrays of a .npy or .npz file; objects (pickle) are refused.

    Raises:
        InputError: the file is missing, or proves damaged while it is read.
    """
    need_file(path)
    with reading(path, "a file of numpy arrays without objects"), _opened(_arrays, path) as arrays:
        yield arrays


def _arrays(path: File) -> Arrays:
    assert isinstance(path, Path)  # as open_arrays asks
    return Arrays(path)


def _raster(path: File) -> rasterio.DatasetReader:
    """The raster at ``path``, open."""
    try:
        dataset = rasterio.open(path)
    except RasterioIOError as error:
        other = other_format(path)
        if not other or other == TIFF:
            raise
        raise InputError(f"{path}: expected a raster or a picture, found {other}") from error
    if dataset.driver == "ENVI" and isinstance(path, Path):
        _need_all_pixels(dataset, path)
    return dataset


def _need_all_pixels(dataset: rasterio.DatasetReader, path: Path) -> None:
    """Raise InputError for bare numbers that are fewer than the header says: GDAL reads zeros."""
    header = dataset.tags(ns="ENVI")
    if header.get("file_compression", "0") != "0":
        return
    pixel = sum(np.dtype(dtype).itemsize for dtype in dataset.dtypes)
    expected = int(header.get("header_offset", 0)) + pixel * dataset.width * dataset.height
    found = path.stat().st_size
    if found < expected:
        dataset.close()
        raise InputError(
            f"{path}: expected {expected} bytes for {dataset.count} x {dataset.height} x "
            f"{dataset.width} pixels, found {found}: the file is cut off; fetch it again"
        )


def _picture(path: File) -> rasterio.DatasetReader:
    """The raster at ``path``, open. That it has no georeference is what is expected."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        dataset = _raster(path)
    orientation = int(dataset.tags().get("EXIF_Orientation", UPRIGHT))  # of a JPEG
    if isinstance(path, Path):
        orientation = max(orientation, orientation_of(path))
    if orientation > UPRIGHT:  # GDAL passes it over, as other programs do not
        dataset.close()
        raise InputError(
            f"{path}: expected an upright picture, found the orientation {orientation} (EXIF); "
            "turn it first (exiftran -a, jpegtran, magick -auto-orient)"
        )
    return dataset


def _hdf5_file(path: File) -> h5py.File:
    """The HDF5 file at ``path``, open for reading."""
    try:
        return h5py.File(path)  # for reading only unless it is given a mode
    except OSError as error:
        if "unable to lock file" in str(error):
            raise InputError(
                f"{path}: locked, most likely because another program has it open for writing; "
                "try again when that has ended. If none has, the file system knows no locks: set "
                "HDF5_USE_FILE_LOCKING=FALSE"
            ) from error
        if "already open for write" in str(error):
            raise InputError(
                f"{path}: marked as open for writing: another program writes it, or one was "
                f"killed while it did; in the second case run h5clear -s {path.name}"
            ) from error
        other = other_format(path)
        if other:
            raise InputError(f"{path}: expected an HDF5 file, found {other}") from error
        raise


@contextmanager
def open_zarr(path: File) -> Iterator[zarr.Group]:
    """An open zarr group, of format 2 or 3, in a folder or at a URL.

    Raises:
        InputError: there is none, or it proves damaged while it is read.
    """
    need_file(path)
    with reading(path, "a zarr group"):
        yield zarr.open_group(str(path), mode="r")


def need_dataset(file: h5py.File, name: str) -> h5py.Dataset:
    """A dataset of an open HDF5 file; InputError when it is not there."""
    dataset = file.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise InputError(
            f"{file.filename}: expected the dataset {name!r}, found only {sorted(file)}"
        )
    return dataset


@contextmanager
def reading(path: File, kind: str) -> Iterator[None]:
    """Turn what a library raises over the file at ``path`` into an InputError.

    Calls into the library belong inside, and the code that makes sense of what they give. Its
    errors are the file's too, except those of ``BUGS``.

    Args:
        path: the file that is read.
        kind: what was expected of it, with its article: "a raster file".

    Raises:
        InputError: the file is damaged or of another kind.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        if isinstance(error, BUGS) and not is_of_library(error):
            raise
        raise InputError(
            f"{path}: expected {kind}, found a damaged or other file ({words_of(error)})"
        ) from error


def need_file(path: File) -> None:
    """Raise InputError unless a local file is there. For a remote one, opening it tells."""
    if isinstance(path, Path) and not path.exists():
        raise InputError(f"no file {path}; paths are relative to the manifest")


def need_crs(path: File, crs: CRS | None) -> CRS:
    """Return ``crs``, or raise InputError when it does not say where the raster is."""
    if crs is None or not has_place(crs):
        raise InputError(
            f"{path}: expected a projected or geographic CRS, found {crs}; "
            "georeference the file first"
        )
    return crs


def need_upright(path: File, transform: Affine) -> None:
    """Raise InputError for pixels without a place, and for turned ones.

    Rows may run to the north and columns to the west: resampling flips them.
    """
    if transform == Affine.identity():  # what GDAL says of a file without a transform
        raise InputError(f"{path}: has no transform; georeference the file first")
    if transform.b or transform.d or not transform.a or not transform.e:
        raise InputError(
            f"{path}: expected rows and columns along the axes of the CRS, found the transform "
            f"{tuple(transform)[:6]}; warp it first"
        )
