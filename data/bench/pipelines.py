"""Pipelines from stored samples to cut views, for the same samples, frames and views.

Ours, a stock ``webdataset`` pipeline that decodes every member, and windows of the source rasters
read with rasterio. Each is an endless iterator of batches of one sample, in one process and one
thread.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch
import webdataset
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from rasterio.enums import Resampling
from rasterio.windows import Window

from data.prepare.place.grid import CELL
from data.stream.augment import recolour
from data.stream.batches import Steps
from data.stream.collate import collate, empty_batch, place_frames, place_image, place_labels
from data.stream.cut import cut
from data.stream.decode import Decoded
from data.stream.draw import SampleDraw, draw_sample
from data.stream.mixture import Mixture
from data.stream.order import Order
from data.stream.sample import Batch
from data.stream.settings import DataSettings
from data.stream.views import View, affine, orient
from data.tiles.modalities import MODALITIES, observed

SEED = 0


def plain(settings: DataSettings) -> DataSettings:
    """Without photometric changes, which cost every pipeline the same."""
    return replace(
        settings,
        augment=replace(
            settings.augment,
            jitter_probability=0.0,
            grey_probability=0.0,
            blur_probability=(0.0, 0.0, 0.0),
            solarise_probability=0.0,
        ),
    )


def ours(folder: Path, settings: DataSettings) -> Iterator[Batch]:
    """The training's own stream, nothing read ahead."""
    settings = replace(settings, shards=str(folder / "shards"), read_ahead=0, workers=0)
    dataset = Mixture.open(settings)
    order = Order(SEED, dataset.parts, batch_size=1)
    steps = Steps(dataset, settings, order, rank=0, world_size=1)
    step = 0
    while True:
        batch = steps.result(step)
        if isinstance(batch, Exception):
            raise batch
        yield batch
        step += 1


def stock(folder: Path, settings: DataSettings) -> Iterator[Batch]:
    """webdataset over the same tars: every member of a sample is decoded whole, then cut.

    The reduced image, which only our stream knows how to use, is left out.
    """
    dataset = Mixture.open(replace(settings, shards=str(folder / "shards")))
    numbers = {key: number for number, key in enumerate(dataset.keys())}
    urls = sorted(str(path) for path in (folder / "shards").glob("*.tar"))
    handlers = [
        webdataset.handle_extension("png", partial(webdataset.imagehandler("l8"), "png")),
        webdataset.handle_extension("blosc", _all_frames),
        webdataset.handle_extension("zst", Zstd().decode),
        webdataset.imagehandler("torchrgb8"),
    ]
    source = webdataset.WebDataset(
        urls, shardshuffle=False, select_files=lambda name: not name.endswith("hr_2.jpg")
    )
    use = 0
    while True:
        for sample in source.decode(*handlers):
            number = numbers[sample["__key__"]]
            draw = draw_sample(dataset, settings, seed=SEED, sample=number, use=use)
            yield collate(use, [cut(draw, _chosen(sample, draw), settings.views)], settings)
        use += 1


def rasters(folder: Path, settings: DataSettings) -> Iterator[Batch]:
    """A map-style dataset over rasters of the tile's own size, one file a date."""
    return _windows(folder, settings, "rasters")


def scenes(folder: Path, settings: DataSettings) -> Iterator[Batch]:
    """A map-style dataset over scenes as archives hold them: a file for each date and band."""
    return _windows(folder, settings, "scenes")


def _windows(folder: Path, settings: DataSettings, kind: str) -> Iterator[Batch]:
    """Read the window of every view from every drawn file, resampled by GDAL."""
    dataset = Mixture.open(replace(settings, shards=str(folder / "shards")))
    numbers = [i for i in range(len(dataset)) if (folder / kind / dataset.entry(i).key).is_dir()]
    position = 0
    while True:
        use, row = divmod(position, len(numbers))
        batch = empty_batch(position, 1, settings)
        chosen = draw_sample(dataset, settings, seed=SEED, sample=numbers[row], use=use)
        key = chosen.key
        batch.keys[0] = key
        batch.region[0] = chosen.region
        for size, shown in chosen.shown.items():
            for number, view_frames in enumerate(shown):
                place_frames(batch.views[size], view_frames, slot=0, number=number)
        for name in chosen.frames:
            _read_views(folder / kind / key, name, chosen, batch)
        _read_labels(folder / kind / key / "labels.tif", chosen, batch)
        yield batch
        position += 1


def _read_views(folder: Path, name: str, chosen: SampleDraw, batch: Batch) -> None:
    """The windows of all views of one sensor's drawn files."""
    sensor = MODALITIES[name]
    with ExitStack() as stack:
        dates = _open_dates(folder, name, chosen, stack)
        for size, views in chosen.views.items():
            target = batch.views[size]
            side = target.images[name].shape[-1]
            for v, view in enumerate(views):
                target.affine[0, v] = torch.from_numpy(affine(view))
                images = np.stack([_read_date(files, view, side) for files in dates])  # T C H W
                mask = orient(torch.from_numpy(observed(images, sensor)), view)  # T H W
                image = torch.from_numpy(np.nan_to_num(images.astype(np.float32)))  # T C H W
                if name == "hr":
                    colour = chosen.colours[size][v]
                    image = recolour(image[0].byte(), mask[0], colour)[None]  # 1 3 H W
                place_image(target, name, orient(image, view), mask, slot=0, number=v)


def _open_dates(
    folder: Path, name: str, chosen: SampleDraw, stack: ExitStack
) -> list[list[rasterio.DatasetReader]]:
    """The open files of each drawn date of a sensor, a file for each band or one for all."""
    stems = ["hr"]
    if name != "hr":
        stems = [f"{name}-{frame:03d}" for frame in chosen.frames[name]]
    dates = []
    for stem in stems:
        paths = sorted(folder.glob(f"{stem}*.tif"))
        dates.append([stack.enter_context(rasterio.open(path)) for path in paths])
    return dates


def _read_date(files: list[rasterio.DatasetReader], view: View, side: int) -> np.ndarray:
    """A view of all bands of one date: C side side."""
    return np.concatenate([_window(file, view, side) for file in files])


def _read_labels(path: Path, chosen: SampleDraw, batch: Batch) -> None:
    """The windows of all views of the label raster."""
    with rasterio.open(path) as file:
        for size, views in chosen.views.items():
            target = batch.views[size]
            for v, view in enumerate(views):
                labels = _window(file, view, target.labels.shape[-1], Resampling.nearest)[0]
                place_labels(target, orient(torch.from_numpy(labels), view), slot=0, number=v)


def _window(
    file: rasterio.DatasetReader, view: View, side: int, method: Resampling = Resampling.cubic
) -> np.ndarray:
    """A view of a raster: C side side.

    The tile begins ``corner`` pixels, a tag of the file, from the raster's corner.
    """
    scale = CELL / file.res[0] / view.steps  # pixels a step
    corner = float(file.tags().get("corner", 0))
    window = Window(
        corner + view.x0 * scale, corner + view.y0 * scale, view.w * scale, view.h * scale
    )
    return file.read(window=window, out_shape=(file.count, side, side), resampling=method)


def _all_frames(data: bytes) -> list[bytes]:
    """Every acquisition of a series. The frames follow each other and tell their own lengths."""
    frames = []
    start = 0
    while start < len(data):
        size = int.from_bytes(data[start + 12 : start + 16], "little")  # of Blosc's header
        frames.append(Blosc().decode(data[start : start + size]))
        start += size
    return frames


def _chosen(sample: dict, chosen: SampleDraw) -> Decoded:
    """The drawn frames of a wholly decoded sample."""
    meta = sample["meta.json"]
    decoded = Decoded(meta["cells"])
    for name, frames in chosen.frames.items():
        shape = meta["stacks"][f"{name}_valid"]["shape"]
        masks = np.frombuffer(sample[f"{name}_valid.zst"], bool).reshape(shape)  # T n n
        decoded.valid[name] = torch.from_numpy(masks[frames])
        if name == "hr":
            decoded.hr = sample["hr.jpg"]
        else:
            series = _frames_of_series(sample[f"{name}.blosc"], frames, meta["stacks"][name])
            decoded.series[name] = torch.from_numpy(series)
    decoded.labels = torch.from_numpy(sample["labels.png"].copy())
    return decoded


def _frames_of_series(data: list[bytes], numbers: np.ndarray, table: dict) -> np.ndarray:
    """Some frames of a series, as its entry in the sample's table says: T C n n float32."""
    arrays = []
    for frame in data:
        arrays.append(np.frombuffer(frame, table["dtype"]).reshape(table["shape"]))
    stored = np.stack(arrays)
    return stored[numbers].astype(np.float32) * np.float32(table["step"] or 1)
