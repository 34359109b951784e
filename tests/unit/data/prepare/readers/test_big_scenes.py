"""Of a big or remote scene only the pixels that a tile needs are read."""

import functools
import multiprocessing
import re
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine

from data.errors import InputError
from data.prepare.build import build_tile
from data.prepare.contract.files import Remote
from data.prepare.manifest.entry import Entry
from data.prepare.place.grid import Grid
from data.prepare.readers.geotiff import GeoTiffBands, GeoTiffImage
from tests.paths import PATIENCE


def write_big(path: Path, driver: str, side: int, **options) -> Affine:
    """A scene of ``side`` x ``side`` 10 m pixels whose numbers tell their place, written a strip at
    a time."""
    transform = Affine(10, 0, 499_980, 0, -10, 5_400_000)
    profile = {
        "width": side,
        "height": side,
        "count": 1,
        "dtype": "uint16",
        "crs": "EPSG:32632",
        "transform": transform,
    }
    tiff = path.with_suffix(".tif")
    with rasterio.open(
        tiff,
        "w",
        driver="GTiff",
        tiled=True,
        blockxsize=512,
        blockysize=512,
        compress="deflate",
        zlevel=1,
        **profile,
    ) as dataset:
        for row in range(0, side, 512):
            rows = np.arange(row, min(row + 512, side), dtype=np.uint32)[:, None]
            strip = (rows * 31 + np.arange(side, dtype=np.uint32)[None] * 7) % 60_000 + 1
            dataset.write(
                strip.astype(np.uint16), 1, window=rasterio.windows.Window(0, row, side, len(rows))
            )
    if driver != "GTiff":
        rasterio.shutil.copy(tiff, path, driver=driver, **options)
    return transform


def peak_memory() -> int:
    """Bytes of the most memory that this process has had resident."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


def _read_far_corner(path: Path, cells: int, results) -> None:
    """In a process of its own: what reading a tile in the scene's far corner, then the whole scene,
    adds to the peak; and the tile's pixels."""
    reader = GeoTiffBands({"VV": path, "VH": path}, modality="sar", date="2020-01-01")
    place = reader.place()
    bounds = place.georeference.bounds(place.shape)
    grid = Grid(
        place.georeference.crs,
        bounds.right - 10 * (cells + 7),
        bounds.bottom + 10 * (cells + 9),
        cells,
    )
    before = peak_memory()
    array = reader.read(grid)[0].array
    after = peak_memory()
    with rasterio.open(path) as dataset:
        dataset.read(1)
    results.put((after - before, peak_memory() - before, array[0, 0]))


@pytest.mark.parametrize("driver, name", [("GTiff", "scene.tif"), ("JP2OpenJPEG", "scene.jp2")])
def test_a_tile_of_a_big_scene_takes_the_memory_of_a_tile(tmp_path, driver, name):
    side = 8192
    options = {} if driver == "GTiff" else {"QUALITY": "100", "REVERSIBLE": "YES"}
    write_big(tmp_path / name, driver, side, **options)
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    process = context.Process(target=_read_far_corner, args=(tmp_path / name, 64, results))
    process.start()
    tile, whole, array = results.get(timeout=PATIENCE)
    process.join()
    assert whole > 2 * side * side and tile < whole / 3  # the rest is what the decoder itself takes
    rows, columns = side - 73 + np.arange(64)[:, None], side - 71 + np.arange(64)[None]
    np.testing.assert_array_equal(array, (rows * 31 + columns * 7) % 60_000 + 1)


def test_a_tile_larger_than_the_limit_is_refused(tmp_path):
    write_big(tmp_path / "scene.tif", "GTiff", 2048)
    reader = GeoTiffImage(tmp_path / "scene.tif", ("VV",), modality="sar", date="2020-01-01")
    with pytest.raises(InputError, match="2048 x 2048 cells, the most is 1024.*centre"):
        build_tile(Entry("a", (reader,), "", ""))


class _Ranges(SimpleHTTPRequestHandler):
    """A web server that knows ranges of bytes, and counts what it sends."""

    sent = None  # shared between processes

    def do_GET(self):
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        first, last = 0, len(data) - 1
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(wanted[1]), min(int(wanted[2] or last), last)
        self.send_response(206 if wanted else 200)
        self.send_header("Content-Length", str(last + 1 - first))
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.end_headers()
        self.wfile.write(data[first : last + 1])
        with self.sent.get_lock():
            self.sent.value += last + 1 - first

    def log_message(self, *_):
        """Silence."""


def _serve(folder: Path, sent, port) -> None:
    """In a process of its own: GDAL waits for the answer with the interpreter's lock held."""
    _Ranges.sent = sent
    server = ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(_Ranges, directory=str(folder))
    )
    port.put(server.server_port)
    server.serve_forever()


@pytest.mark.parametrize("prefix", ["", "/vsicurl/"])
def test_only_the_window_of_a_remote_scene_is_fetched(tmp_path, prefix):
    write_big(tmp_path / "scene.tif", "GTiff", 4096)
    context = multiprocessing.get_context("spawn")
    sent, port = context.Value("q", 0), context.Queue()
    server = context.Process(target=_serve, args=(tmp_path, sent, port), daemon=True)
    server.start()
    try:
        url = Remote(f"{prefix}http://127.0.0.1:{port.get(timeout=PATIENCE)}/scene.tif")
        reader = GeoTiffBands({"VV": url, "VH": url}, modality="sar", date="2020-01-01")
        reader.check()
        place = reader.place()
        corner = place.georeference.transform
        grid = Grid(place.georeference.crs, corner.c + 21_000, corner.f - 17_000, 32)
        array = reader.read(grid)[0].array[0, 0]
        with pytest.raises(InputError, match="scene.tiff: expected a raster file"):
            GeoTiffBands(
                {"VV": Remote(url + "f"), "VH": url}, modality="sar", date="2020-01-01"
            ).check()
    finally:
        server.kill()
        server.join()
    rows, columns = 1700 + np.arange(32)[:, None], 2100 + np.arange(32)[None]
    np.testing.assert_array_equal(array, (rows * 31 + columns * 7) % 60_000 + 1)
    assert 0 < sent.value < (tmp_path / "scene.tif").stat().st_size / 4
