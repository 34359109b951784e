"""From decoded samples to a batch of fixed shapes: normalised, zero where invalid, a mask beside
every image."""

from functools import cache

import numpy as np
import torch
from torch import Tensor

from data.stream.augment import Colours, recolour
from data.stream.decode import Decoded
from data.stream.sample import Batch, ViewSet
from data.stream.settings import DataSettings
from data.stream.views import View, affine, cut_hr, cut_labels, cut_series
from data.tiles.modalities import MODALITIES
from data.tiles.tile import HR_PIXELS, LABEL_PIXELS, UNLABELLED


def empty_batch(step: int, size: int, settings: DataSettings) -> Batch:
    """A batch of ``size`` samples in which everything is missing: zeros, masks false, labels -1,
    region -1."""
    views = settings.views
    sizes = {
        "global": (views.global_views, views.global_cells),
        "local": (views.local_views, views.local_cells),
    }
    sets = {}
    for name, (count, n) in sizes.items():
        shapes = {
            m: (
                size,
                count,
                frames,
                len(MODALITIES[m].bands),
                n * MODALITIES[m].pixels,
                n * MODALITIES[m].pixels,
            )
            for m, frames in settings.frames.items()
        }
        sets[name] = ViewSet(
            images={
                m: torch.zeros(
                    shape,
                    dtype=torch.uint8
                    if m == "hr" and settings.augment.on_device
                    else torch.float32,
                )
                for m, shape in shapes.items()
            },  # B V T C H W
            valid={
                m: torch.zeros(size, count, frames, n, n, dtype=torch.bool)
                for m, frames in settings.frames.items()
            },  # B V T n n
            labels=torch.full((size, count, LABEL_PIXELS * n, LABEL_PIXELS * n), -1),  # B V 8n 8n
            affine=torch.zeros(size, count, 2, 3, dtype=torch.float64),  # B V 2 3
            colours=[[Colours()] * count for _ in range(size)]
            if settings.augment.on_device
            else None,
        )
    days = {
        m: torch.zeros(size, frames, dtype=torch.int64) for m, frames in settings.frames.items()
    }
    return Batch(step, [""] * size, sets, days, torch.full((size,), -1), [])


def fill(
    batch: Batch,
    slot: int,
    key: str,
    region: int,
    days: dict[str, np.ndarray],
    sample: Decoded,
    views: dict[str, list[View]],
    colours: dict[str, list[Colours]],
) -> None:
    """Cut one sample into its slot of an ``empty_batch``. ``days``: modality -> day index of each
    drawn frame, which come first along the frame axis; ``colours``: of each high-resolution view,
    kept for later if the batch has a place for them."""
    batch.keys[slot] = key
    batch.region[slot] = region
    for modality, values in days.items():
        batch.days[modality][slot, : len(values)] = torch.from_numpy(values)
    for name, group in views.items():
        target = batch.views[name]
        for v, view in enumerate(group):
            target.affine[slot, v] = torch.from_numpy(affine(view))
            if sample.hr is not None:
                n = target.valid["hr"].shape[-1]
                image, mask = cut_hr(sample.hr, sample.valid["hr"][0], view, n)
                if target.colours is None:
                    put(
                        target,
                        "hr",
                        slot,
                        v,
                        recolour(image, mask, colours[name][v])[None],
                        mask[None],
                    )
                else:
                    target.images["hr"][slot, v, 0], target.valid["hr"][slot, v, 0] = image, mask
                    target.colours[slot][v] = colours[name][v]
            for modality, series in sample.series.items():
                n = target.valid[modality].shape[-1]
                put(target, modality, slot, v, *cut_series(series, sample.valid[modality], view, n))
            if sample.labels is not None:
                labels = cut_labels(
                    sample.labels, view, target.labels.shape[-1] // LABEL_PIXELS
                ).long()  # 8n 8n
                target.labels[slot, v] = labels.masked_fill_(labels == UNLABELLED, -1)


def put(target: ViewSet, modality: str, slot: int, v: int, image: Tensor, mask: Tensor) -> None:
    """Normalise T C H W (stored numbers / the sensor's scale) and store it with its T n n mask;
    invalid pixels become exactly zero."""
    place = target.images[modality][slot, v, : len(image)]  # T C H W
    mean, std = _statistics(modality, image.device)
    torch.sub(image, mean, out=place).div_(std)
    if not mask.all():
        scale = HR_PIXELS if modality == "hr" else 1
        pixels = mask.repeat_interleave(scale, 1).repeat_interleave(scale, 2)  # T H W
        place.masked_fill_(~pixels[:, None], 0.0)
    target.valid[modality][slot, v, : len(image)] = mask


@cache
def _statistics(modality: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and deviation of a sensor's bands: C 1 1 each."""
    sensor = MODALITIES[modality]
    return tuple(
        torch.tensor(values, device=device)[:, None, None] for values in (sensor.mean, sensor.std)
    )


def apply_colours(views: ViewSet, images: Tensor, valid: Tensor) -> Tensor:
    """The high-resolution images of a set of views that carries its colours, finished on their
    device.

    images: B V 1 3 H W uint8; valid: B V 1 n n bool, both on the device. Returns float32 as
    ``fill`` makes it: normalised, zero where invalid."""
    out = torch.zeros(images.shape, device=images.device)  # B V 1 3 H W
    mean, std = _statistics("hr", images.device)  # 3 1 1
    whole = views.valid["hr"].flatten(2).all(2).tolist()  # B V, from the host's copy
    pixels = valid.repeat_interleave(HR_PIXELS, 3).repeat_interleave(HR_PIXELS, 4)  # B V 1 H W
    for b, row in enumerate(views.colours):
        for v, colours in enumerate(row):
            out[b, v, 0] = (
                recolour(images[b, v, 0], valid[b, v, 0], colours, whole[b][v]) - mean
            ) / std
    return out.masked_fill_(~pixels[:, :, :, None], 0.0)
