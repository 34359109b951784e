"""SkySense V2 with everything pre-training adds: projection heads, query decoder, text projection."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.backbone.packing import Layout
from models.backbone.stochastic_depth import Draw
from models.features import FUSED, Features, Views
from models.moe.layer import Routing
from models.pretraining.projection_head import ProjectionHead
from models.pretraining.query_decoder import QueryDecoder
from models.recompute import NONE
from models.reducer import Reducer
from models.skysense import SkySense
from models.spec import ModelSpec


@dataclass
class Outputs:
    """What one call over all views gives."""

    features: dict[str, Features]  # by view size
    queries: dict[str, Tensor]  # view size -> B V m D, semantic aggregation
    region: Tensor  # B int64
    routings: list[Routing]  # one a mixture-of-experts block
    layouts: list[Layout]  # the packed layout each of them saw


class Pretraining(nn.Module):
    """Student or teacher. Each feature (modalities and "fused") has two heads: image level, and
    dense (pixel, object).

    Two heads for each of four features are what explains the size of the predecessor's "Others"
    row.
    """

    def __init__(
        self,
        spec: ModelSpec,
        *,
        ep_size: int | None = None,
        reducer: Reducer | None = None,
        recompute: str = NONE,
    ):
        super().__init__()
        self.spec = spec
        self.trunk = SkySense(spec, ep_size=ep_size, reducer=reducer, recompute=recompute)
        widths = {name: spec.widths[-1] for name in spec.modalities} | {FUSED: spec.fused_width}
        self.heads = nn.ModuleDict(
            {
                feature: nn.ModuleDict(
                    {level: ProjectionHead(width, spec.head) for level in ("image", "dense")}
                )
                for feature, width in widths.items()
            }
        )
        self.decoder = QueryDecoder(
            spec.fused_width, spec.fusion.width, spec.queries, spec.fusion.heads
        )
        self.query_head = ProjectionHead(spec.fusion.width, spec.head)
        self.text_projection = nn.Linear(spec.fused_width, spec.text_width)

    def forward(self, views: dict[str, Views], draw: Draw | None = None) -> Outputs:
        """One packed pass over the views of every size; ``draw`` as in ``Backbone``, the student's
        alone."""
        features, routings, layouts = self.trunk(views, draw)
        queries = {size: self._aggregate(found) for size, found in features.items()}
        region = next(iter(views.values())).region
        return Outputs(features, queries, region, routings, layouts)

    def _aggregate(self, features: Features) -> Tensor:
        """The queries read one view's fused map: B V m D."""
        fused = features.maps[FUSED]  # B V 1 g g D
        batch, views = fused.shape[:2]
        cells = fused.flatten(0, 1).flatten(1, 3)  # BV G D
        mask = features.valid[FUSED].flatten(0, 1).flatten(1, 3)  # BV G
        return self.decoder(cells, mask).unflatten(0, (batch, views))  # B V m D

    @torch.no_grad()
    def update_context(self, outputs: Outputs, reducer: Reducer) -> Tensor:
        """Move the geo-context prototypes with the global views' fused features (equations 8-10).

        Returns the regions that would not be finite, () int64: unless it is zero nothing was
        written."""
        if self.trunk.context is None:
            return outputs.region.new_zeros(())
        found = outputs.features["global"]
        query = found.query.detach().flatten(1, 3)  # B G D, both global views of a sample together
        mask = found.valid[FUSED].flatten(1, 4)  # B G
        return self.trunk.context.update(query, mask, outputs.region, reducer)
