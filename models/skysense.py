"""SkySense V2 assembled: tokenizers, unified backbone, temporal fusion, geo context."""

from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from models.backbone.stages import Backbone, Stages
from models.backbone.stochastic_depth import Draw
from models.backbone.tokenizer import Tokenizer
from models.features import FUSED, Features, Views, check_dates, check_images
from models.fusion.geo_context import GeoContext
from models.fusion.grids import cell_validity, to_grid
from models.fusion.transformer import CellSeries, Fusion
from models.moe.layer import MoE, Routing
from models.packing import Group, Layout, pack
from models.recompute import NONE
from models.reducer import Reducer
from models.spec import ModelSpec


class SkySense(nn.Module):
    """The model that downstream users keep (supplement, section B)."""

    def __init__(
        self,
        spec: ModelSpec,
        *,
        ep_size: int | None = None,
        reducer: Reducer | None = None,
        recompute: str = NONE,
    ):
        """Build the model; ``models.initialise`` or a checkpoint fills its parameters.

        Args:
            spec: All sizes.
            ep_size: The number of ranks that DeepSpeed spreads the experts over. None keeps all
                experts here, in plain PyTorch, under the same parameter names.
            reducer: Collectives for the balance of the MoE gates; None for a single process.
            recompute: One of ``models.recompute.POLICIES``.
        """
        super().__init__()
        self.spec = spec
        self.tokenizers = nn.ModuleDict()
        for name, modality in spec.modalities.items():
            self.tokenizers[name] = Tokenizer(modality.bands, spec.widths[0], spec.patch)
        moe_factory = None
        if spec.moe is not None:
            moe_factory = partial(MoE, spec=spec.moe, ep_size=ep_size, reducer=reducer)
        self.backbone = Backbone(spec, moe_factory, recompute=recompute)
        self.fusion: Fusion | None = None
        self.context: GeoContext | None = None
        if spec.fusion is not None:
            self.fusion = Fusion(
                spec.fusion, spec.widths[-1], tuple(spec.modalities), recompute=recompute
            )
            if spec.context is not None:
                self.context = GeoContext(spec.fusion.width, spec.context)

    def forward(
        self, views: Mapping[str, Views], draw: Draw | None = None
    ) -> tuple[dict[str, Features], list[Routing]]:
        """Features of the views of every size, in one packed pass.

        Args:
            views: View size -> views.
            draw: The random choice of stochastic depth, as in ``Backbone.forward``.

        Returns:
            View size -> features, and the routing of each MoE layer. Without fusion in the
            specification the features are those of the modalities alone.

        Raises:
            ModelError: ``views`` is no dictionary of ``Views``, a modality is unknown, or a shape
                is wrong.
        """
        stages, routings = self.encode(views, draw)
        features = self.unpack(views, *stages[-1])
        self.fuse(views, features)
        return features, routings

    def encode(
        self, views: Mapping[str, Views], draw: Draw | None = None
    ) -> tuple[Stages, list[Routing]]:
        """Run the tokenizers and the backbone; returns what ``Backbone.forward`` does."""
        check_images(views, self.spec)
        groups = []
        tokens = []
        present = []
        for size, inputs in views.items():
            for name in inputs.images:
                patches = self._tokenise(inputs, name)  # BVT hw D
                height, width = inputs.images[name].shape[-2:]
                grid = (height // self.spec.patch, width // self.spec.patch)
                groups.append(Group(name, size, patches.shape[0], height=grid[0], width=grid[1]))
                tokens.append(patches)
                present.append(inputs.valid[name].flatten(0, 2).flatten(1).any(1))  # BVT
        return self.backbone(pack(tokens), Layout(tuple(groups)), present, draw)

    def _tokenise(self, inputs: Views, name: str) -> Tensor:
        """Tokens (B V T, hw, D) of the images of one modality."""
        images = inputs.images[name]
        valid = inputs.valid[name]  # B V T n n
        height, width = images.shape[-2:]
        pixels = valid.repeat_interleave(height // valid.shape[-2], -2)
        pixels = pixels.repeat_interleave(width // valid.shape[-1], -1)  # B V T H W
        # absent pixels must have no influence, whatever their values
        images = images.where(pixels.unsqueeze(-3), images.new_zeros(()))  # B V T C H W
        return self.tokenizers[name](images.flatten(0, 2))  # BVT hw D

    def unpack(self, views: Mapping[str, Views], x: Tensor, layout: Layout) -> dict[str, Features]:
        """Give the packed tokens of one stage back to their view sizes and modalities.

        Args:
            views: The views that ``encode`` took.
            x: Packed tokens (N, D).
            layout: Their table.

        Returns:
            View size -> maps of the modalities, with the validity of their cells.
        """
        features = {size: Features({}, {}) for size in views}
        for tokens, group in zip(layout.split(x), layout.groups):
            valid = views[group.view].valid[group.modality]  # B V T n n
            grid = (group.height, group.width)
            maps = tokens.unflatten(1, grid).unflatten(0, valid.shape[:3])  # B V T h w D
            features[group.view].maps[group.modality] = maps
            features[group.view].valid[group.modality] = cell_validity(valid, grid)  # B V T h w
        return features

    def fuse(self, views: Mapping[str, Views], features: dict[str, Features]) -> None:
        """Add the fused features, with their geo context, to the last stage's features.

        Does nothing in a model without fusion.

        Args:
            views: View size -> views.
            features: View size -> features of the modalities. Changed in place.

        Raises:
            ModelError: The days or the regions do not fit the images.
        """
        if self.fusion is None or self.spec.fusion is None:
            return
        check_dates(views)
        grids = {}
        series = {}
        for size, inputs in views.items():
            grids[size] = fusion_grid(inputs, features[size], self.spec.fusion.cells_per_token)
            series[size] = cell_series(inputs, features[size], grids[size])
        fused = self.fusion(list(series.values()))  # by size: BV G D
        for size, cells in zip(views, fused):
            valid = torch.stack([mask.any(1) for mask in series[size].valid.values()])
            self._add_fused(
                views[size], features[size], cells=cells, valid=valid.any(0), grid=grids[size]
            )

    def _add_fused(
        self,
        inputs: Views,
        features: Features,
        *,
        cells: Tensor,
        valid: Tensor,
        grid: tuple[int, int],
    ) -> None:
        """Append what the region's prototypes say to the fused cells, and store both.

        ``cells`` is (B V, G, D), ``valid`` (B V, G) bool.
        """
        batch = inputs.region.shape[0]
        count = cells.shape[0] // batch  # views
        shape = (batch, count, *grid)
        if self.context is not None:
            query = self.context.query(cells)  # BV G D
            region = inputs.region  # B
            if inputs.reads_context is not None:
                region = region.where(inputs.reads_context, -1)
            read = self.context.read(query, region.repeat_interleave(count))  # BV G D
            features.query = query.reshape(*shape, -1)  # B V g g D
            cells = torch.cat([cells, read.to(cells.dtype)], dim=-1)  # BV G D
        features.maps[FUSED] = cells.reshape(*shape, -1).unsqueeze(2)  # B V 1 g g D
        features.valid[FUSED] = valid.reshape(shape).unsqueeze(2)  # B V 1 g g


def fusion_grid(inputs: Views, features: Features, cells_per_token: int) -> tuple[int, int]:
    """Rows and columns of the fusion grid of some views.

    Args:
        inputs: Their ``grid`` is taken if they have one.
        features: Otherwise the coarsest of their maps counts.
        cells_per_token: Fusion cells along a side of a token of that map.
    """
    if inputs.grid is not None:
        return inputs.grid
    rows = min(maps.shape[-3] for maps in features.maps.values())
    columns = min(maps.shape[-2] for maps in features.maps.values())
    return cells_per_token * rows, cells_per_token * columns


def cell_series(inputs: Views, features: Features, grid: tuple[int, int]) -> CellSeries:
    """The maps of all modalities on the fusion grid, with the views as samples of their own."""
    tokens = {}
    valid = {}
    days = {}
    for name, maps in features.maps.items():
        batch, count, frames = maps.shape[:3]
        mask = features.valid[name]  # B V T h w
        resized, resized_mask = to_grid(maps.flatten(0, 2), mask.flatten(0, 2), grid)
        series = (batch * count, frames)
        tokens[name] = resized.flatten(1, 2).unflatten(0, series)  # BV T G D
        valid[name] = resized_mask.flatten(1, 2).unflatten(0, series)  # BV T G
        days[name] = inputs.days[name].flatten(0, 1)  # BV T
    return CellSeries(tokens, valid, days)
