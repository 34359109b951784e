"""What features are worth without any training on top: effective rank and weighted k-NN.

Features come from one undistorted view of every whole tile. k-NN as in DINO: cosine similarity of
L2-normalised features, votes weighted by exp(similarity / 0.07).
"""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from data.errors import InputError
from data.stream.batches import open_stream
from data.stream.decode import Source
from data.stream.sample import Batch
from data.stream.settings import GLOBAL, DataSettings
from engine.training.objective import to_views
from models.features import FUSED, Views, pooled
from models.pretraining.model import Pretraining

TEMPERATURE = 0.07
NEIGHBOURS = (10, 20, 100, 200)
ROUNDING = 1e-6  # spread of float32 features, relative to their size, that is rounding alone
ROWS = 1024  # of the similarity matrix at once


@dataclass
class Extracted:
    """Features of S samples of a dataset, each once, in the order of one epoch."""

    keys: list[str]
    vectors: dict[str, Tensor]  # modality or "fused" -> S D, mean over the valid cells and frames
    present: dict[str, Tensor]  # modality or "fused" -> S bool
    cells: Tensor  # S G D, fused map
    # S G int64, commonest class of the labelled pixels in a cell; -1: no label, or nothing valid
    labels: Tensor


def undistorted(settings: DataSettings, cells: int | None = None) -> DataSettings:
    """The same input with whole tiles as views, upright, without changes of colour or date.

    Args:
        settings: of the run.
        cells: side of the views in 10 m cells; None: as the run's global views.

    Returns:
        Settings without worker processes, as there are few samples.
    """
    if cells is None:
        cells = settings.views.global_cells
    views = replace(
        settings.views,
        global_cells=cells,
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
    views = to_views(batch, torch.device("cpu"))[GLOBAL]
    images = {}
    valid = {}
    for modality in views.images:
        images[modality] = views.images[modality][:, :1]  # B 1 T C H W
        valid[modality] = views.valid[modality][:, :1]  # B 1 T n n
    return replace(views, images=images, valid=valid)


@torch.no_grad()
def extract(
    model: Pretraining,
    dataset: Source,
    settings: DataSettings,
    *,
    classes: int,
    limit: int = 512,
) -> Extracted:
    """Features of every sample once.

    A sample that cannot be read is left out, as its substitute would count twice.

    Args:
        model: student or teacher.
        dataset: what to extract features of.
        settings: of the run.
        classes: K of the class table.
        limit: most samples: the first ones of a shuffled epoch.

    Raises:
        InputError: more samples cannot be read than ``settings.max_bad_samples`` allows.
    """
    steps = range(min(len(dataset), limit))
    stream = open_stream(dataset, undistorted(settings), seed=0, batch_size=1, steps=steps)
    collected = _Collected()
    for batch in stream:
        if not batch.quarantined:
            collected.add(model, batch, classes)
    return collected.joined()


@dataclass
class _Collected:
    """Features of the batches so far."""

    keys: list[str] = field(default_factory=list)
    vectors: dict[str, list[Tensor]] = field(default_factory=dict)  # B D each
    present: dict[str, list[Tensor]] = field(default_factory=dict)  # B each
    cells: list[Tensor] = field(default_factory=list)  # B G D each
    labels: list[Tensor] = field(default_factory=list)  # B G each

    def add(self, model: Pretraining, batch: Batch, classes: int) -> None:
        """Run the model on the whole tiles of a batch."""
        features = model.trunk({GLOBAL: whole_tiles(batch)})[0][GLOBAL]
        self.keys += batch.keys
        for name in features.maps:
            vector, present = pooled(features, name)  # B D, B
            self.vectors.setdefault(name, []).append(vector)
            self.present.setdefault(name, []).append(present)
        fused = features.maps[FUSED][:, 0, 0]  # B g g D
        valid = features.valid[FUSED][:, 0, 0]  # B g g
        labels = majority(batch.views[GLOBAL].labels[:, 0], side=fused.shape[1], classes=classes)
        self.cells.append(fused.flatten(1, 2).float())
        self.labels.append(labels.where(valid, -1).flatten(1))

    def joined(self) -> Extracted:
        """All batches as one."""
        vectors = {}
        present = {}
        for name in self.vectors:
            vectors[name] = torch.cat(self.vectors[name])  # S D
            present[name] = torch.cat(self.present[name])  # S
        return Extracted(
            keys=self.keys,
            vectors=vectors,
            present=present,
            cells=torch.cat(self.cells),
            labels=torch.cat(self.labels),
        )


def majority(labels: Tensor, *, side: int, classes: int) -> Tensor:
    """Commonest class of each cell of a side x side grid.

    Args:
        labels: (B, L, L) int64, -1 for no label.
        side: of the grid.
        classes: K.

    Returns:
        (B, side, side) int64, -1 in cells without a label.
    """
    one_hot = F.one_hot(labels + 1, classes + 1)[..., 1:].float().permute(0, 3, 1, 2)  # B K L L
    share = F.adaptive_avg_pool2d(one_hot, side)  # B K side side
    return share.argmax(1).where(share.amax(1) > 0, -1)


def effective_rank(features: Tensor) -> float:
    """exp of the entropy of the normalised singular values (Roy & Vetterli, 2007).

    Args:
        features: (S, D), which are centred here.

    Returns:
        1 for collapsed features, at most min(S - 1, D). A spread as small as the rounding of
        float32 counts as collapse.
    """
    exact = features.double()  # before centring, which would round
    values = torch.linalg.svdvals(exact - exact.mean(0))
    if values.sum() <= ROUNDING * exact.norm():
        return 1.0
    share = values / values.sum()
    return float(torch.special.entr(share).sum().exp())


def knn(features: Tensor, labels: Tensor, groups: Tensor, *, k: int, classes: int) -> float:
    """Accuracy of weighted k-NN, each entry judged by the entries of other groups only.

    Args:
        features: (N, D).
        labels: (N,) int64.
        groups: (N,) int64, here the tile, so that neighbours on the ground do not vote.
        k: neighbours, cut to what there is.
        classes: K.

    Raises:
        InputError: the numbers of rows differ, or there are fewer than two groups.
    """
    if features.ndim != 2 or labels.shape != (len(features),) or groups.shape != labels.shape:
        raise InputError(
            f"knn: expected features of N x D, labels and groups of N, found shapes "
            f"{tuple(features.shape)}, {tuple(labels.shape)} and {tuple(groups.shape)}"
        )
    if len(groups.unique()) < 2:
        raise InputError(
            "knn: expected labelled cells of at least two tiles, found one; label more tiles"
        )
    unit = F.normalize(features.float(), dim=-1)  # N D
    correct = 0
    for rows in torch.arange(len(labels)).split(ROWS):
        similarity = unit[rows] @ unit.T  # n N
        same_group = groups[rows][:, None] == groups[None]  # n N
        similarity = similarity.masked_fill(same_group, -torch.inf)
        near, index = similarity.topk(min(k, len(labels) - 1), dim=1)  # n k
        weight = (near / TEMPERATURE).exp()  # n k, 0 for the own group
        votes = torch.zeros(len(rows), classes).scatter_add_(1, labels[index], weight)  # n K
        correct += int((votes.argmax(1) == labels[rows]).sum())
    return correct / len(labels)


def evaluate(extracted: Extracted, classes: int) -> dict:
    """Effective ranks and k-NN accuracies as one JSON object.

    Features that are not finite have None for both.
    """
    labelled = extracted.labels >= 0  # S G
    numbers = torch.arange(len(extracted.keys))  # S
    labels = extracted.labels[labelled]  # N
    tiles = numbers[:, None].expand_as(extracted.labels)[labelled]  # N
    tile_count = len(tiles.unique())
    result = {
        "samples": len(extracted.keys),
        "samples_of": {name: int(mask.sum()) for name, mask in extracted.present.items()},
        "effective_rank": _effective_ranks(extracted),
        "labelled_cells": len(labels),
        "labelled_tiles": tile_count,
    }
    if tile_count >= 2:
        features = extracted.cells[labelled]  # N D
        result["knn"] = _knn_accuracies(features, labels, tiles, classes)
        result["commonest_class"] = float((labels == labels.mode().values).float().mean())
    return result


def _effective_ranks(extracted: Extracted) -> dict[str, float | None]:
    """Effective rank by feature, of those that two samples have at least."""
    ranks: dict[str, float | None] = {}
    for name, vectors in extracted.vectors.items():
        present = vectors[extracted.present[name]]  # n D
        if len(present) < 2:
            continue
        ranks[name] = None
        if present.isfinite().all():
            ranks[name] = effective_rank(present)
    return ranks


def _knn_accuracies(
    features: Tensor, labels: Tensor, tiles: Tensor, classes: int
) -> dict[str, float | None]:
    """Accuracy by number of neighbours; None for features that are not finite."""
    finite = bool(features.isfinite().all())
    accuracies: dict[str, float | None] = {}
    for k in NEIGHBOURS:
        if k >= len(labels) and k != NEIGHBOURS[0]:
            continue
        accuracies[str(k)] = None
        if finite:
            accuracies[str(k)] = knn(features, labels, tiles, k=k, classes=classes)
    return accuracies
