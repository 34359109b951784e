"""Regions of the Earth made by hand, and how far their prototypes differ after some updates.

    python -m tests.unit.models.fusion.regions

prints a table over the cosine between the cells of a sample, for the rules that were tried. "as
printed" takes equations 8 to 10 as they stand, each sample assigned alone. "chosen" is
models/fusion/geo_context.py.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from models.fusion.geo_context import GeoContext
from models.fusion.sinkhorn import sinkhorn_many
from models.reducer import Reducer
from models.spec import ContextSpec

UPDATES = 600
SAMPLES = 4  # of each region in a batch
REGIONS = 4
PROTOTYPES = 50
WIDTH = 64
CELLS = 64
CLASSES = 12  # of land cover, a region
MOMENTUM = 0.99
# Shares of what the cells of a region do not share: the sample, the class, noise.
SHARES = (0.2, 0.5, 0.3)


@dataclass(frozen=True)
class SyntheticRegions:
    """Cells of a common vector, their sample's, their class's and noise, float32.

    Args:
        cosine: mean between two cells of a sample, at least 0.34.
    """

    cosine: float
    seed: int = 0

    def start(self):
        """Draw what the regions are; a draw of the samples follows."""
        generator = torch.Generator().manual_seed(self.seed)

        def directions(*shape):
            return F.normalize(torch.randn(*shape, WIDTH, generator=generator), dim=-1)

        mean = F.normalize(0.84 * directions(1) + 0.55 * directions(REGIONS), dim=-1)  # R d
        classes = directions(REGIONS, CLASSES)  # R C d
        sample, cover, noise = SHARES
        same = (1 + 0.3) / (1 + 0.3 * CLASSES)  # probability of two cells having the same class
        inner = sample + cover * same
        common = max(0.0, (self.cosine - inner) / (1 - inner))

        def draw(samples):
            """Cells (R, samples, G, d)."""
            odds = torch._sample_dirichlet(
                torch.full((REGIONS * samples, CLASSES), 0.3), generator=generator
            )
            chosen = torch.multinomial(odds, CELLS, replacement=True, generator=generator)
            region = torch.arange(REGIONS).repeat_interleave(samples)[:, None]
            inner = (
                sample**0.5 * directions(REGIONS * samples, 1)
                + cover**0.5 * classes[region, chosen]
                + noise**0.5 * directions(REGIONS * samples, CELLS)
            )
            cells = common**0.5 * mean[region] + (1 - common) ** 0.5 * inner
            return cells.unflatten(0, (REGIONS, samples))

        return draw


@dataclass(frozen=True)
class Rule:
    """A way to assign cells to prototypes; each sample is assigned alone unless ``together``."""

    centre: str | None = None  # subtracted from the cells: "sample", "prototypes", "region"
    together: bool = False  # all samples of the region at once
    by_spread: bool = False  # epsilon is half the standard deviation of the similarities
    read_as_printed: bool = False  # the query is the feature as it is


AS_PRINTED = Rule(read_as_printed=True)
CHOSEN = Rule(centre="region", together=True)
RULES = {
    "as printed": AS_PRINTED,
    "epsilon by spread": Rule(by_spread=True),
    "together": Rule(together=True),
    "centred by prototypes": Rule(centre="prototypes"),
    "centred by sample": Rule(centre="sample"),
    "both": Rule(centre="sample", together=True),
    "both, by spread": Rule(centre="sample", together=True, by_spread=True),
    "chosen": CHOSEN,
}


class Figures(NamedTuple):
    """Means over the regions."""

    cosine: float  # between two prototypes
    rank: float  # effective number of directions of the centred prototypes
    spread: float  # variance of the prototypes over that of the cells
    explained: float  # share of the cells' variance, by the nearest prototype
    read: float  # variance of the read-out inside a sample over that of the cells inside a sample
    between: float  # variance of the read-out inside a sample over that between regions


def collapse_figures(regions, *, samples, updates, rule=CHOSEN):
    """Update prototypes with samples of the regions, and measure them on new samples.

    Args:
        regions: SyntheticRegions.
        samples: of each region in a batch.
        updates: number of batches.
        rule: CHOSEN is the code of the model, the others stand here.
    """
    draw = regions.start()
    spec = ContextSpec(
        regions=REGIONS, prototypes=PROTOTYPES, width=WIDTH, momentum=MOMENTUM, epsilon=0.05
    )
    context = GeoContext(WIDTH, spec)
    context.init_parameter("prototypes", context.prototypes, torch.Generator().manual_seed(1))
    region = torch.arange(REGIONS).repeat_interleave(samples)
    valid = torch.ones(REGIONS * samples, CELLS, dtype=torch.bool)
    for _ in range(updates):
        cells = draw(samples)
        if rule != CHOSEN:
            update_by_rule(context.prototypes, cells, rule)
        else:
            context.update(cells.flatten(0, 1), valid, region, reducer=Reducer())
    return measured(context, draw(16), rule)


def update_by_rule(prototypes, cells, rule):
    """Equations 8 to 10 for cells (R, S, G, d), with one of the rules."""
    keys = prototypes[:, None]  # R 1 P d
    differences = cells  # R S G d
    if rule.centre == "sample":
        differences = cells - cells.mean(2, keepdim=True)
    if rule.centre == "prototypes":
        differences = cells - keys.mean(2, keepdim=True)
    if rule.centre is not None:
        keys = keys - keys.mean(2, keepdim=True)
    similarity = F.normalize(differences, dim=-1) @ F.normalize(keys, dim=-1).mT  # R S G P
    if rule.together:
        similarity = similarity.flatten(1, 2)[:, None]  # R 1 SG P
        cells = cells.flatten(1, 2)[:, None]  # R 1 SG d
    if rule.by_spread:
        deviation = (similarity - similarity.mean(2, keepdim=True)).std((2, 3), keepdim=True)
        similarity = similarity * 0.05 / (0.5 * deviation)
    valid = torch.ones(similarity.shape[:-1], dtype=torch.bool)
    shares = sinkhorn_many(similarity, valid, epsilon=0.05, iterations=3)
    values = (shares / shares.sum(-2, keepdim=True)).mT @ cells  # R S P d
    prototypes.lerp_(values.mean(1), 1 - MOMENTUM)


def measured(context, cells, rule):
    """Figures of the prototypes and of what the cells (R, S, G, d) read."""
    prototypes = context.prototypes
    unit = F.normalize(prototypes, dim=-1)
    cosine = ((unit @ unit.mT).sum((1, 2)) - PROTOTYPES) / (PROTOTYPES**2 - PROTOTYPES)
    centred = prototypes - prototypes.mean(1, keepdim=True)
    power = torch.linalg.svdvals(centred.double()).square()
    rank = power.sum(-1).square() / power.square().sum(-1)
    flat = cells.flatten(1, 2)  # R SG d
    variance = _variance(flat, 1)
    differences = flat - prototypes.mean(1, keepdim=True)
    nearest = (F.normalize(differences, dim=-1) @ F.normalize(centred, dim=-1).mT).argmax(-1)
    chosen = prototypes.take_along_dim(nearest[..., None], 1)
    explained = 1 - (flat - chosen).square().sum(-1).mean() / variance
    if rule.read_as_printed:
        read = (flat @ prototypes.mT / WIDTH**0.5).softmax(-1) @ prototypes  # R SG d
    else:
        read = context.read(flat, torch.arange(REGIONS))
    read = read.unflatten(1, cells.shape[1:3])  # R S G d
    inside = _variance(read, 2)
    return Figures(
        cosine=cosine.mean().item(),
        rank=rank.mean().item(),
        spread=(_variance(prototypes, 1) / variance).item(),
        explained=explained.item(),
        read=(inside / _variance(cells, 2)).item(),
        between=(inside / _variance(read.mean((1, 2)), 0)).item(),
    )


def _variance(x, axis):
    """Mean square distance to the mean along an axis; vectors lie along the last."""
    return (x - x.mean(axis, keepdim=True)).square().sum(-1).mean()


def main():
    """Print the table."""
    print("rule                   cells   " + "  ".join(f"{name:>9}" for name in Figures._fields))
    for name, rule in RULES.items():
        for cosine in (0.5, 0.75, 0.9, 0.97):
            figures = collapse_figures(
                SyntheticRegions(cosine), samples=SAMPLES, updates=UPDATES, rule=rule
            )
            numbers = "  ".join(f"{figure:9.3f}" for figure in figures)
            print(f"{name:21}  {cosine:5.2f}   {numbers}", flush=True)


if __name__ == "__main__":
    main()
