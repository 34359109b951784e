"""What features are worth without any training on top: effective rank and weighted k-NN.

Features come from one undistorted view of every whole tile. k-NN: cosine similarity of
L2-normalised features, votes weighted by exp(similarity / 0.07), as DINO does.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from data.stream.batches import open_stream
from data.stream.mixture import Mixture
from data.stream.sample import Batch
from data.stream.settings import DataSettings
from engine.training.objective import to_views
from models.features import FUSED, Views, pooled
from models.pretraining.model import Pretraining

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)
ROUNDING = 1e-6  # spread of float32 features, relative to their size, that is no spread
ROWS = 1024  # of the similarity matrix at once


@dataclass
class Extracted:
    """Features of S samples of a dataset, each once, in the order of one epoch."""

    keys: list[str]
    vectors: dict[str, Tensor]  # modality or "fused" -> S D, mean over the valid cells and frames
    present: dict[str, Tensor]  # modality or "fused" -> S bool
    cells: Tensor  # S G D, fused map
    # S G int64, commonest class of the labelled pixels in a cell; -1: no label, or nothing seen
    # there
    labels: Tensor


def undistorted(settings: DataSettings, cells: int | None = None) -> DataSettings:
    """The same input with every view a whole tile, upright, without changes of colour or date.

    ``cells``: side of the views in 10 m cells, None for the global views' own. No worker processes:
        few samples."""
    views = replace(
        settings.views,
        global_cells=cells or settings.views.global_cells,
        global_views=2,
        local_views=1,
        global_scale=(1.0, 1.0),
        local_scale=(1.0, 1.0),
        aspect=(1.0, 1.0),
        flips=False,
        quarter_turns=False,
    )
    augment = replace(
        settings.augment,
        jitter_probability=0.0,
        grey_probability=0.0,
        blur_probability=(0.0, 0.0, 0.0),
        solarise_probability=0.0,
        date_jitter_days=0,
        on_device=False,
    )
    return replace(settings, views=views, augment=augment, workers=0)


def whole_tiles(batch: Batch) -> Views:
    """The first global view of an undistorted batch: the others are the same picture."""
    views = to_views(batch, torch.device("cpu"))["global"]
    return replace(
        views,
        images={name: x[:, :1] for name, x in views.images.items()},
        valid={name: x[:, :1] for name, x in views.valid.items()},
    )


@torch.no_grad()
def extract(
    model: Pretraining, dataset: Mixture, settings: DataSettings, classes: int, limit: int = 512
) -> Extracted:
    """Features of every sample once, of ``limit`` samples at most: the first of a shuffled epoch.

    ``settings`` are the run's; ``classes`` is K of the class table. A sample that cannot be read is
    left out as far as ``settings.max_bad_samples`` allows (its substitute would count twice); one
    more raises InputError."""
    steps = range(min(len(dataset), limit))
    stream = open_stream(dataset, undistorted(settings), seed=0, batch_size=1, steps=steps)
    keys, vectors, present, cells, labels = [], {}, {}, [], []
    for batch in stream:
        if batch.quarantined:
            continue
        features = model.trunk({"global": whole_tiles(batch)})[0]["global"]
        keys += batch.keys
        for name in features.maps:
            vector, seen = pooled(features, name)
            vectors.setdefault(name, []).append(vector)  # B D
            present.setdefault(name, []).append(seen)  # B
        fused = features.maps[FUSED][:, 0, 0]  # B g g D
        cells.append(fused.flatten(1, 2).float())  # B G D
        truth = majority(batch.views["global"].labels[:, 0], fused.shape[1], classes)  # B g g
        labels.append(truth.where(features.valid[FUSED][:, 0, 0], -1).flatten(1))  # B G
    return Extracted(
        keys,
        {name: torch.cat(v) for name, v in vectors.items()},
        {name: torch.cat(p) for name, p in present.items()},
        torch.cat(cells),
        torch.cat(labels),
    )


def majority(labels: Tensor, side: int, classes: int) -> Tensor:
    """Commonest class of each cell of a side x side grid: (B, L, L) with -1 for no label -> (B,
    side, side)."""
    hot = F.one_hot(labels + 1, classes + 1)[..., 1:].float().permute(0, 3, 1, 2)  # B K L L
    share = F.adaptive_avg_pool2d(hot, side)  # B K side side
    return share.argmax(1).where(share.amax(1) > 0, -1)  # B side side


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred features (S, D) (Roy &
    Vetterli, 2007).

    1 for collapsed features, at most min(S - 1, D). A spread as small as the rounding of float32
    counts as collapse.
    """
    exact = features.double()  # before centring, which would round
    values = torch.linalg.svdvals(exact - exact.mean(0))
    if values.sum() <= ROUNDING * exact.norm():
        return 1.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def knn(features: Tensor, labels: Tensor, groups: Tensor, k: int, classes: int) -> float:
    """Accuracy of weighted k-NN, each entry judged by the entries of other groups only.

    Args:
        features: (N, D); labels: (N,) int64.
        groups: (N,) int64, here the tile, so that neighbours in space do not vote.
        k: neighbours, cut to what there is.

    Raises:
        InputError: fewer than two groups.
    """
    if len(groups.unique()) < 2:
        raise InputError(
            "knn: expected labelled cells of at least two tiles, found one; label more tiles"
        )
    unit = F.normalize(features.float(), dim=-1)  # N D
    right = 0
    for rows in torch.arange(len(labels)).split(ROWS):
        similarity = unit[rows] @ unit.T  # n N
        similarity = similarity.masked_fill(
            groups[rows][:, None] == groups[None], -torch.inf
        )  # n N
        near, index = similarity.topk(min(k, len(labels) - 1), dim=1)  # n k
        weight = (near / TEMPERATURE).exp()  # n k, 0 for the own group
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels[index], weight)  # n K
        right += int((votes.argmax(1) == labels[rows]).sum())
    return right / len(labels)


def evaluate(found: Extracted, classes: int) -> dict:
    """Effective ranks and k-NN accuracies as one JSON object. Features that are not finite have
    None for both."""
    ranks = {
        name: effective_rank(chosen) if chosen.isfinite().all() else None
        for name, vectors in found.vectors.items()
        if len(chosen := vectors[found.present[name]]) > 1
    }
    labelled = found.labels >= 0  # S G
    labels, features = found.labels[labelled], found.cells[labelled]  # N, N D
    tiles = torch.arange(len(found.keys))[:, None].expand_as(found.labels)[labelled]  # N
    samples = {name: int(seen.sum()) for name, seen in found.present.items()}
    result = {
        "samples": len(found.keys),
        "samples_of": samples,
        "effective_rank": ranks,
        "labelled_cells": len(labels),
        "labelled_tiles": len(tiles.unique()),
    }
    if result["labelled_tiles"] >= 2:
        finite = bool(features.isfinite().all())
        result["knn"] = {
            str(k): knn(features, labels, tiles, k, classes) if finite else None
            for k in NEIGHBOURS
            if k < len(labels) or k == NEIGHBOURS[0]
        }
        result["commonest_class"] = float((labels == labels.mode().values).float().mean())
    return result
