"""Batches without shards, for tests that need a whole training step."""

import torch

from data.seeded import generator
from data.stream.collate import empty_batch
from data.stream.sample import Batch
from data.stream.views import affine, draw_views
from engine.config.settings import Settings
from engine.cost.count import TILE_CELLS


def whole_batch(settings: Settings) -> Batch:
    """One sample without any gap, its views drawn as ``expected_rows`` draws the first."""
    batch = empty_batch(0, 1, settings.data)
    drawn = draw_views(
        generator(settings.seed, "sample 0", 0, "views"), TILE_CELLS, settings.data.views
    )
    for size, views in batch.views.items():
        for v, view in enumerate(drawn[size]):
            views.affine[0, v] = torch.from_numpy(affine(view))
        views.labels.zero_()
        for modality, images in views.images.items():
            images.normal_()
            views.valid[modality].fill_(True)
    batch.region.zero_()
    return batch
