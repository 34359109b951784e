"""What the teacher's features are worth without any training on top: effective rank and weighted k-NN.

Features come from one undistorted view of every whole tile. k-NN: cosine similarity of L2-normalised features, votes
weighted by exp(similarity / 0.07), as DINO does.
"""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from data.settings import DataSettings
from data.shards import ShardDataset
from data.stream import open_stream
from engine.objective import to_views
from models.pretraining import FUSED, Pretraining

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)


@dataclass
class Extracted:
    """Features of all samples of a dataset, S of them, in dataset order of one epoch."""

    keys: list[str]
    vectors: dict[str, Tensor]  # modality or "fused" -> S D, mean over the valid cells and frames
    present: dict[str, Tensor]  # modality or "fused" -> S bool
    cells: Tensor  # S G D, fused map
    labels: Tensor  # S G int64, commonest class of the labelled pixels in a cell, -1 without any


def undistorted(settings: DataSettings) -> DataSettings:
    """The same input with every view a whole tile, upright, without changes of colour or date."""
    views = replace(settings.views, global_scale=(1.0, 1.0), local_scale=(1.0, 1.0), aspect=(1.0, 1.0), flips=False,
                    quarter_turns=False)
    augment = replace(settings.augment, jitter_probability=0.0, grey_probability=0.0,
                      blur_probability=(0.0, 0.0, 0.0), solarise_probability=0.0, date_jitter_days=0)
    return replace(settings, views=views, augment=augment)


@torch.no_grad()
def extract(model: Pretraining, dataset: ShardDataset, settings: DataSettings, classes: int) -> Extracted:
    """Features of every sample once. ``settings`` are the run's; ``classes`` is K of the class table."""
    stream = open_stream(dataset, undistorted(settings), 0, 1, 0, 1, 0, len(dataset))  # one epoch, a sample a step
    keys, vectors, present, cells, labels = [], {}, {}, [], []
    for batch in stream:
        views = {"global": to_views(batch, torch.device("cpu"))["global"]}
        features = model(views).features["global"]
        keys += batch.keys
        for name, maps in features.maps.items():
            mask = features.valid[name][:, 0].flatten(1)  # B Thw
            found = maps[:, 0].flatten(1, -2).float() * mask[..., None]  # B Thw D
            vectors.setdefault(name, []).append(found.sum(1) / mask.sum(1, keepdim=True).clamp(min=1))  # B D
            present.setdefault(name, []).append(mask.any(1))  # B
        fused = features.maps[FUSED][:, 0, 0]  # B g g D
        cells.append(fused.flatten(1, 2).float())  # B G D
        labels.append(majority(batch.views["global"].labels[:, 0], fused.shape[1], classes).flatten(1))  # B G
    return Extracted(keys, {name: torch.cat(v) for name, v in vectors.items()},
                     {name: torch.cat(p) for name, p in present.items()}, torch.cat(cells), torch.cat(labels))


def majority(labels: Tensor, side: int, classes: int) -> Tensor:
    """Commonest class of each cell of a side x side grid: (B, L, L) with -1 for no label -> (B, side, side)."""
    hot = F.one_hot(labels + 1, classes + 1)[..., 1:].float().permute(0, 3, 1, 2)  # B K L L
    share = F.adaptive_avg_pool2d(hot, side)  # B K side side
    return share.argmax(1).where(share.amax(1) > 0, -1)  # B side side


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values of centred features (S, D) (Roy & Vetterli, 2007).

    1 for collapsed features, at most min(S - 1, D). Zero variance counts as 1.
    """
    values = torch.linalg.svdvals((features - features.mean(0)).double())
    if values.sum() <= 1e-12 * features.double().norm():
        return 1.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def knn(features: Tensor, labels: Tensor, groups: Tensor, k: int, classes: int) -> float:
    """Accuracy of weighted k-NN, each entry judged by the entries of other groups only.

    Args:
        features: (N, D); labels: (N,) int64; groups: (N,) int64, here the tile, so that neighbours in space do not vote.
        k: neighbours, cut to what there is.

    Raises:
        ValueError: fewer than two groups.
    """
    if len(groups.unique()) < 2:
        raise ValueError("knn: expected labelled cells of at least two tiles, found one; label more tiles")
    unit = F.normalize(features.float(), dim=-1)  # N D
    similarity = unit @ unit.T  # N N
    similarity = similarity.masked_fill(groups[:, None] == groups[None], -torch.inf)  # N N
    near, index = similarity.topk(min(k, len(labels) - 1), dim=1)  # N k
    weight = (near / TEMPERATURE).exp()  # N k, 0 for the own group
    votes = torch.zeros(len(labels), classes).scatter_add_(1, labels[index], weight)  # N K
    return float((votes.argmax(1) == labels).float().mean())


def evaluate(found: Extracted, classes: int) -> dict:
    """Effective ranks and k-NN accuracies as one JSON object."""
    ranks = {name: effective_rank(vectors[found.present[name]])
             for name, vectors in found.vectors.items() if int(found.present[name].sum()) > 1}
    labelled = found.labels >= 0  # S G
    labels = found.labels[labelled]  # N
    result = {"samples": len(found.keys), "effective_rank": ranks, "labelled_cells": len(labels)}
    tiles = torch.arange(len(found.keys))[:, None].expand_as(found.labels)[labelled]  # N
    if len(tiles.unique()) >= 2:
        features = found.cells[labelled]  # N D
        result["knn"] = {str(k): knn(features, labels, tiles, k, classes) for k in NEIGHBOURS}
        result["commonest_class"] = float((labels == labels.mode().values).float().mean())
    return result
