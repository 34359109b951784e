"""SkySense V2 with what pre-training adds: projection heads, query decoder, text projection."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.backbone.stochastic_depth import Draw
from models.errors import ModelError
from models.features import FUSED, Features, Views
from models.fusion.geo_context import ContextUpdate
from models.moe.layer import Routing
from models.pretraining.projection_head import ProjectionHead
from models.pretraining.query_decoder import QueryDecoder
from models.recompute import NONE
from models.reducer import Reducer
from models.skysense import SkySense
from models.spec import ModelSpec


@dataclass
class Outputs:
    """Results of one call over all views."""

    features: dict[str, Features]  # by view size
    queries: dict[str, Tensor]  # view size -> B V m D, for semantic aggregation
    region: Tensor  # B int64
    routings: list[Routing]  # one for each MoE layer


class Pretraining(nn.Module):
    """Student or teacher.

    Each feature (modalities and "fused") has two projection heads: "image" for whole images and
    "dense" for pixels and objects. Two heads for each of four features explain the size of
    the row "Others" that the paper gives for its predecessor.
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
        if spec.fusion is None:
            raise ModelError(
                "model.fusion: expected a fusion transformer for pre-training, found none; set it"
            )
        self.spec = spec
        self.trunk = SkySense(spec, ep_size=ep_size, reducer=reducer, recompute=recompute)
        self.heads = nn.ModuleDict()
        for name in spec.modalities:
            self.heads[name] = _feature_heads(spec.widths[-1], spec)
        self.heads[FUSED] = _feature_heads(spec.fused_width, spec)
        self.decoder = QueryDecoder(
            spec.fused_width,
            spec.fusion.width,
            queries=spec.queries,
            heads=spec.fusion.heads,
        )
        self.query_head = ProjectionHead(spec.fusion.width, spec.head)
        self.text_projection = nn.Linear(spec.fused_width, spec.text_width)

    def forward(self, views: dict[str, Views], draw: Draw | None = None) -> Outputs:
        """Run the views of every size in one packed pass.

        Args:
            views: by view size.
            draw: as in ``Backbone``; only the student has one.
        """
        features, routings = self.trunk(views, draw)
        queries = {size: self._aggregate(maps) for size, maps in features.items()}
        region = next(iter(views.values())).region
        return Outputs(features, queries, region, routings)

    def _aggregate(self, features: Features) -> Tensor:
        """Read the fused map of each view with the queries: (B, V, m, D)."""
        fused = features.maps[FUSED]  # B V 1 g g D
        batch, views = fused.shape[:2]
        cells = fused.flatten(0, 1).flatten(1, 3)  # BV G D
        mask = features.valid[FUSED].flatten(0, 1).flatten(1, 3)  # BV G
        return self.decoder(cells, mask).unflatten(0, (batch, views))  # B V m D

    @torch.no_grad()
    def update_context(self, outputs: Outputs, reducer: Reducer) -> ContextUpdate | None:
        """Move the geo-context prototypes with the global views' fused features (equations 8-10).

        Args:
            outputs: of the student or teacher.
            reducer: collectives over the global batch.

        Returns:
            What the update says of itself; None without a geo context.
        """
        if self.trunk.context is None:
            return None
        features = outputs.features["global"]
        assert features.query is not None  # a trunk with a context always computes it
        query = features.query.detach().flatten(1, 3)  # B G D, global views of a sample together
        mask = features.valid[FUSED].flatten(1, 4)  # B G
        return self.trunk.context.update(query, mask, outputs.region, reducer=reducer)


def _feature_heads(width: int, spec: ModelSpec) -> nn.ModuleDict:
    """The two heads of one feature of ``width`` channels."""
    return nn.ModuleDict(
        {
            "image": ProjectionHead(width, spec.head),
            "dense": ProjectionHead(width, spec.head),
        }
    )
