"""SkySense V2 assembled: tokenizers, unified backbone, temporal fusion, geo context."""

import torch
from torch import Tensor, nn

from models.backbone.packing import Group, Layout, pack
from models.backbone.stages import Backbone, Stages
from models.backbone.stochastic_depth import Draw
from models.backbone.tokenizer import Tokenizer
from models.features import FUSED, Features, Views
from models.fusion.geo_context import GeoContext
from models.fusion.grids import cell_validity, to_grid
from models.fusion.transformer import Fusion
from models.moe.layer import MoE, Routing
from models.recompute import NONE
from models.reducer import Reducer
from models.spec import CELL_METRES, ModelSpec


class SkySense(nn.Module):
    """The model that downstream users keep (supplement, section B).

    ``ep_size`` spreads the experts over that many ranks through DeepSpeed; None keeps all of them
    here, in plain PyTorch, under the same parameter names.
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
        reducer = reducer or Reducer()

        def moe(width: int, block: int) -> nn.Module:
            return MoE(width, width * spec.mlp_ratio, spec.moe, ep_size=ep_size, reducer=reducer)

        self.tokenizers = nn.ModuleDict(
            {
                name: Tokenizer(modality.bands, spec.widths[0], spec.patch)
                for name, modality in spec.modalities.items()
            }
        )
        self.backbone = Backbone(spec, moe, recompute=recompute)
        self.fusion = self.context = None
        if spec.fusion is not None:
            self.fusion = Fusion(
                spec.fusion, spec.widths[-1], tuple(spec.modalities), recompute=recompute
            )
        if spec.context is not None:
            self.context = GeoContext(spec.fusion.width, spec.context)

    def forward(
        self, views: dict[str, Views], draw: Draw | None = None
    ) -> tuple[dict[str, Features], list[Routing], list[Layout]]:
        """Features of the views of every size in one packed pass, with the routing of each expert
        layer.

        Without fusion in the specification the features are those of the modalities alone. ``draw``
        as in ``Backbone``.
        """
        stages, routings, layouts = self.encode(views, draw)
        features = self.unpack(views, *stages[-1])
        if self.fusion is not None:
            self.fuse(views, features)
        return features, routings, layouts

    def encode(
        self, views: dict[str, Views], draw: Draw | None = None
    ) -> tuple[Stages, list[Routing], list[Layout]]:
        """Tokenizers and backbone: see ``Backbone.forward`` for what comes back."""
        groups, parts, present = [], [], []
        for size, inputs in views.items():
            for name, images in inputs.images.items():
                height, width = images.shape[-2:]
                valid = inputs.valid[name]  # B V T n n
                pixels = valid.repeat_interleave(height // valid.shape[-2], -2)
                pixels = pixels.repeat_interleave(width // valid.shape[-1], -1)  # B V T H W
                # absent pixels must influence nothing, whatever stands in them
                images = images.where(pixels.unsqueeze(-3), images.new_zeros(()))  # B V T C H W
                patches = self.tokenizers[name](images.flatten(0, 2))  # BVT hw D
                groups.append(
                    Group(
                        name,
                        size,
                        patches.shape[0],
                        height // self.spec.patch,
                        width // self.spec.patch,
                    )
                )
                parts.append(patches)
                present.append(valid.flatten(0, 2).flatten(1).any(1))  # BVT
        return self.backbone(pack(parts), Layout(tuple(groups)), present, draw)

    def unpack(self, views: dict[str, Views], x: Tensor, layout: Layout) -> dict[str, Features]:
        """One stage's maps by view size and modality, with the validity of their cells."""
        features = {size: Features({}, {}) for size in views}
        for part, group in zip(layout.split(x), layout.groups):
            valid = views[group.view].valid[group.modality]  # B V T n n
            grid = group.height, group.width
            maps = part.unflatten(1, grid).unflatten(0, valid.shape[:3])  # B V T h w D
            features[group.view].maps[group.modality] = maps
            features[group.view].valid[group.modality] = cell_validity(valid, grid)  # B V T h w
        return features

    def fuse(self, views: dict[str, Views], features: dict[str, Features]) -> None:
        """Fusion and geo context at every cell; adds "fused" to each size's last-stage features."""
        packed = {}
        for size, inputs in views.items():
            grid = self.fusion_grid(inputs)
            tokens, valid, days = {}, {}, {}
            for name, maps in features[size].maps.items():
                batch, count, frames = maps.shape[:3]
                fine, ok = to_grid(
                    maps.flatten(0, 2), features[size].valid[name].flatten(0, 2), grid
                )
                tokens[name] = fine.flatten(1, 2).unflatten(0, (batch * count, frames))  # BV T G D
                valid[name] = ok.flatten(1, 2).unflatten(0, (batch * count, frames))  # BV T G
                days[name] = inputs.days[name].repeat_interleave(count, 0)  # BV T
            packed[size] = (tokens, valid, days)
        fused = self.fusion(list(packed.values()))  # one a size: BV G D
        for (size, (tokens, valid, _)), cells in zip(packed.items(), fused):
            any_valid = torch.stack([ok.any(1) for ok in valid.values()]).any(0)  # BV G
            self._add_context(views[size], features[size], cells, any_valid)

    def _add_context(self, inputs: Views, features: Features, cells: Tensor, valid: Tensor) -> None:
        """Concatenate what the region's prototypes say to the fused cells."""
        batch = inputs.region.shape[0]
        views = cells.shape[0] // batch
        shape = (batch, views, *self.fusion_grid(inputs))
        if self.context is not None:
            query = self.context.query(cells)  # BV G D
            read = self.context.read(query, inputs.region.repeat_interleave(views))  # BV G D
            features.query = query.reshape(*shape, -1)  # B V g g D
            cells = torch.cat([cells, read.to(cells.dtype)], dim=-1)  # BV G D
        features.maps[FUSED] = cells.reshape(*shape, -1).unsqueeze(2)  # B V 1 g g D
        features.valid[FUSED] = valid.reshape(shape).unsqueeze(2)  # B V 1 g g

    def fusion_grid(self, inputs: Views) -> tuple[int, int]:
        """Rows and columns of the fusion grid of these views: as they say, else from the 10 m cells
        of ``valid``."""
        if inputs.grid is not None:
            return inputs.grid
        cells = next(iter(inputs.valid.values())).shape[-2:]
        rows, columns = (
            max(1, round(n * CELL_METRES / self.spec.fusion.cell_metres)) for n in cells
        )
        return rows, columns
