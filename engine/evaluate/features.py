"""Features of every sample of a dataset, from one undistorted view of each whole tile."""

from dataclasses import dataclass, field, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from data.stream.batches import open_stream
from data.stream.decode import Source
from data.stream.sample import Batch
from data.stream.settings import GLOBAL, DataSettings
from engine.training.objective import to_views
from models.features import FUSED, Views, pooled
from models.pretraining.model import Pretraining


@dataclass
class Extracted:
    """Features of S samples of a dataset, each once, in the order of one epoch."""

    keys: list[str]
    vectors: dict[str, Tensor]  # modality or "fused" -> S D, mean over the valid cells and frames
    present: dict[str, Tensor]  # modality or "fused" -> S bool
    cells: Tensor  # S G D, fused map
    # S G int64, commonest class of the labelled pixels in a cell; -1: no label, or nothing valid
    labels: Tensor


def undistorted(settings: DataSettings, zoom: int = 1) -> DataSettings:
    """The same input with whole tiles as views, upright, without changes of colour or date.

    Args:
        settings: of the run.
        zoom: how many times as many pixels along a side as the run's global views the views have.

    Returns:
        Settings without worker processes, as there are few samples.
    """
    pixels = {name: zoom * side for name, side in settings.views.global_pixels.items()}
    views = replace(
        settings.views,
        global_pixels=pixels,
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
    days = {}
    for modality in views.images:
        images[modality] = views.images[modality][:, :1]  # B 1 T C H W
        valid[modality] = views.valid[modality][:, :1]  # B 1 T H W
        days[modality] = views.days[modality][:, :1]  # B 1 T
    return replace(views, images=images, valid=valid, days=days)


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
