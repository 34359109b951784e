"""Small pictures of the worst tiles: every sensor, and the labels with their legend."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from data.audit.findings.records import SuspectTile
from data.audit.page.painting import clearest_frame, paint, paint_classes, tile_picture
from data.pages.class_colours import class_colours
from data.shards.dataset import ShardDataset
from data.stream.decode import decode
from data.tiles.tile import UNLABELLED

DRAWN = 12  # tiles
SIDE = 1.9  # inches


@dataclass(frozen=True)
class Thumbnail:
    """One picture of a tile and what it shows."""

    caption: str
    figure: Figure


@dataclass(frozen=True)
class LegendEntry:
    """A class of the labels and its colour for a style sheet."""

    name: str
    colour: str


@dataclass(frozen=True)
class Card:
    """A tile with everything that speaks against it, and its pictures."""

    key: str
    source: str
    faults: list[SuspectTile]
    pictures: list[Thumbnail]
    legend: list[LegendEntry]


def draw_cards(dataset: ShardDataset, suspects: Sequence[SuspectTile]) -> list[Card]:
    """Draw the worst tiles, of each kind of fault the worst first, then the second of each.

    Args:
        dataset: the audited dataset.
        suspects: faults, those of one kind together, the worst first.
    """
    cards = []
    for sample in _chosen(suspects):
        faults = [suspect for suspect in suspects if suspect.sample == sample]
        cards.append(draw_card(dataset, faults))
    return cards


def _chosen(suspects: Sequence[SuspectTile]) -> list[int]:
    """Samples to draw: kinds take turns."""
    ranks: dict[tuple[str, str, str], int] = {}
    ordered = []
    for position, suspect in enumerate(suspects):
        kind = (suspect.verdict, suspect.sensor, suspect.kind)
        rank = ranks.get(kind, 0)
        ranks[kind] = rank + 1
        ordered.append((rank, position, suspect.sample))
    samples = dict.fromkeys(sample for _, _, sample in sorted(ordered))
    return list(samples)[:DRAWN]


def draw_card(dataset: ShardDataset, faults: list[SuspectTile]) -> Card:
    """Draw one tile: the clearest frame of each sensor, and the labels."""
    sample = faults[0].sample
    entry = dataset.entry(sample)
    frames = {name: np.arange(len(days)) for name, days in entry.dates.items()}
    pictures = []
    for name in entry.dates:
        masks = decode(dataset, sample, {name: frames[name]}, labels=False)
        frame = clearest_frame(masks.valid[name])
        (image,) = paint(name, [tile_picture(masks, name, frame)])
        pictures.append(Thumbnail(f"{name} {entry.dates[name][frame]}", _draw(image)))
    legend = []
    if "labels" in entry.members:
        labels = decode(dataset, sample, {}).labels
        if labels is not None:
            classes = [index for index in labels.unique().tolist() if index != UNLABELLED]
            colours = class_colours(classes)
            pictures.append(Thumbnail("labels", _draw(paint_classes(labels.numpy(), colours))))
            for index, colour in colours.items():
                legend.append(LegendEntry(dataset.classes[index].name, to_hex(colour)))
    return Card(
        key=entry.key,
        source=faults[0].source,
        faults=faults,
        pictures=pictures,
        legend=legend,
    )


def _draw(image: np.ndarray) -> Figure:
    """An image, H W 3 in 0..1, without frame or scales."""
    figure = Figure(figsize=(SIDE, SIDE))
    axis = figure.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    axis.imshow(image)
    return figure
