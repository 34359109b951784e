"""From cut samples to a batch of fixed shapes: normalised, zero where invalid, with masks."""

from functools import cache

import torch
from torch import Tensor

from data.errors import InputError
from data.stream.augment import Colours, recolour
from data.stream.frames import ViewFrames
from data.stream.sample import Batch, CutSample, CutView, ViewSet
from data.stream.settings import DataSettings, ViewSize
from data.tiles.modalities import MODALITIES, UNMEASURED
from data.tiles.tile import UNLABELLED


def empty_batch(step: int, size: int, settings: DataSettings) -> Batch:
    """A batch of ``size`` samples in which everything is missing.

    Images are zero, masks false, labels and regions -1.
    """
    views = {}
    for name, view_size in settings.views.sizes.items():
        views[name] = _empty_views(size, view_size, settings)
    return Batch(
        step=step,
        keys=[""] * size,
        views=views,
        region=torch.full((size,), -1),  # B
        quarantined=[],
    )


def _empty_views(batch_size: int, size: ViewSize, settings: DataSettings) -> ViewSet:
    """The views of one size of an empty batch."""
    lead = (batch_size, size.count)  # B V
    images = {}
    valid = {}
    days = {}
    seen = {}
    for modality, frames in settings.frames.items():
        sensor = MODALITIES[modality]
        side = size.pixels[modality]
        dtype = torch.float32
        if modality == "hr" and settings.augment.on_device:
            dtype = torch.uint8
        images[modality] = torch.zeros(
            *lead, frames, len(sensor.bands), side, side, dtype=dtype
        )  # B V T C H W
        valid[modality] = torch.zeros(*lead, frames, side, side, dtype=torch.bool)  # B V T H W
        days[modality] = torch.zeros(*lead, frames, dtype=torch.int64)  # B V T
        seen[modality] = torch.zeros(*lead, frames, dtype=torch.bool)  # B V T
    colours = None
    if settings.augment.on_device:
        colours = [[Colours()] * size.count for _ in range(batch_size)]
    return ViewSet(
        images=images,
        valid=valid,
        days=days,
        seen=seen,
        labels=torch.full((*lead, size.label_pixels, size.label_pixels), -1),  # B V L L
        affine=torch.zeros(*lead, 2, 3, dtype=torch.float64),  # B V 2 3
        colours=colours,
    )


def collate(step: int, samples: list[CutSample], settings: DataSettings) -> Batch:
    """A batch of some cut samples."""
    batch = empty_batch(step, len(samples), settings)
    for slot, sample in enumerate(samples):
        place(batch, slot, sample)
    return batch


def place(batch: Batch, slot: int, sample: CutSample) -> None:
    """Put a cut sample into its slot of an ``empty_batch``.

    Drawn frames come first along the frame axis. Colours are kept for later if the batch has a
    place for them, otherwise they are applied here.
    """
    batch.keys[slot] = sample.draw.key
    batch.region[slot] = sample.draw.region
    for size, views in sample.views.items():
        for number, view in enumerate(views):
            _place_view(batch.views[size], slot, number, view)


def _place_view(target: ViewSet, slot: int, number: int, view: CutView) -> None:
    """Put one view into its place."""
    target.affine[slot, number] = torch.from_numpy(view.affine)
    place_frames(target, view.frames, slot=slot, number=number)
    for modality, mask in view.valid.items():
        if modality == "hr" and target.colours is not None:
            target.images["hr"][slot, number] = view.images["hr"]
            target.valid["hr"][slot, number] = mask
            target.colours[slot][number] = view.colours
        else:
            image = view.coloured(modality)
            place_image(target, modality, image, mask, slot=slot, number=number)
    if view.labels is not None:
        place_labels(target, view.labels, slot=slot, number=number)


def place_frames(target: ViewSet, frames: ViewFrames, *, slot: int, number: int) -> None:
    """Store the days of one view's frames, and which of them the student sees."""
    for modality, days in frames.days.items():
        target.days[modality][slot, number, : len(days)] = torch.from_numpy(days)
    for modality, seen in frames.seen.items():
        target.seen[modality][slot, number, : len(seen)] = torch.from_numpy(seen)


def place_image(
    target: ViewSet, modality: str, image: Tensor, mask: Tensor, *, slot: int, number: int
) -> None:
    """Normalise the frames of one view and store them with their mask.

    Args:
        target: views of one size.
        modality: sensor.
        image: T C H W, stored numbers divided by the sensor's scale.
        mask: T H W bool; invalid pixels become exactly zero.
        slot: sample of the batch.
        number: view of the sample.
    """
    frames = len(image)
    out = target.images[modality][slot, number, :frames]  # T C H W
    mean, std = _statistics(modality, image.device)  # C 1 1
    torch.sub(image, mean, out=out).div_(std)
    if not mask.all():
        out.masked_fill_(~mask[:, None], 0.0)
    target.valid[modality][slot, number, :frames] = mask


def place_labels(target: ViewSet, labels: Tensor, *, slot: int, number: int) -> None:
    """Store the labels of one view, L L uint8; 255 becomes -1."""
    classes = labels.long()  # L L
    target.labels[slot, number] = classes.masked_fill_(classes == UNLABELLED, -1)


def _statistics(modality: str, device: torch.device) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of a sensor's bands: C 1 1 each.

    Raises:
        InputError: nobody has measured them.
    """
    sensor = MODALITIES[modality]
    if not sensor.is_measured:
        raise InputError(f"sensor {modality!r}: expected its mean and std, {UNMEASURED}")
    return _by_band(sensor.mean, device), _by_band(sensor.std, device)


@cache
def _by_band(numbers: tuple[float, ...], device: torch.device) -> Tensor:
    """A number for each band: C 1 1."""
    return torch.tensor(numbers, device=device)[:, None, None]


def apply_colours(views: ViewSet, images: Tensor, valid: Tensor) -> Tensor:
    """Apply the colours that a set of views carries, on the images' device.

    Images whose colours are applied already are returned as they are.

    Args:
        views: with ``colours``; its masks on the host say which images are valid everywhere.
        images: B V 1 3 H W uint8, high resolution.
        valid: B V 1 H W bool, on the same device.

    Returns:
        B V 1 3 H W float32 as ``place`` stores it: normalised, zero where invalid.
    """
    if views.colours is None:
        return images
    out = torch.zeros(images.shape, device=images.device)  # B V 1 3 H W
    mean, std = _statistics("hr", images.device)  # 3 1 1
    whole = views.valid["hr"].flatten(2).all(2).tolist()  # B V
    for b, row in enumerate(views.colours):
        for v, colours in enumerate(row):
            image = recolour(images[b, v, 0], valid[b, v, 0], colours, whole=whole[b][v])  # 3 H W
            out[b, v, 0] = (image - mean) / std
    return out.masked_fill_(~valid[:, :, :, None], 0.0)
