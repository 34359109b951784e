"""The unified backbone: four stages that all modalities pass through on one packed axis."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from models.backbone.packing import Layout, token_mask
from models.backbone.patch_merging import PatchMerging
from models.backbone.position import Positions
from models.backbone.prompts import Prompts
from models.backbone.stochastic_depth import Draw, choose, run_on_some
from models.backbone.swin_v2 import SwinBlock
from models.backbone.transformer import FeedForward, TransformerBlock
from models.errors import ModelError
from models.moe.layer import Routing
from models.recompute import NONE, WINDOWS, check_policy, run_block
from models.spec import ModelSpec

Stages = list[tuple[Tensor, Layout]]


class Stage(nn.Module):
    """Blocks of one width; with global attention also a position table and prompts."""

    def __init__(
        self, spec: ModelSpec, index: int, ffns: list[nn.Module], *, recompute: str = NONE
    ):
        super().__init__()
        self.index = index
        self.recompute = recompute
        if recompute == WINDOWS and index >= spec.window_stages:
            self.recompute = NONE
        self.drop_path = spec.drop_path
        width = spec.widths[index]
        entry = index - spec.window_stages  # global stages before this one
        if entry < 0:
            shifts = [(i % 2) * (spec.window // 2) for i in range(len(ffns))]
            blocks = [
                SwinBlock(width, spec.head_dim, spec.window, shift, ffn)
                for shift, ffn in zip(shifts, ffns)
            ]
        else:
            blocks = [
                TransformerBlock(width, spec.head_dim, ffn, last=ffn is ffns[-1]) for ffn in ffns
            ]
        self.positions = Positions(spec.modalities, entry, width) if entry >= 0 else None
        self.prompts = (
            Prompts(tuple(spec.modalities), width, spec.prompts[index])
            if spec.prompts[index]
            else None
        )
        self.blocks = nn.ModuleList(blocks)

    def forward(
        self, x: Tensor, layout: Layout, present: Sequence[Tensor], draw: Draw | None = None
    ) -> tuple[Tensor, list[Routing], list[Layout]]:
        """Packed (N, D) -> (N, D), the routing of each expert layer, and the layout it saw: with
        the prompts, but for the last block, which drops them; with the images that the layer's
        block ran on."""
        if self.positions is not None:
            x = self.positions(x, layout)  # N D
        if self.prompts is not None:
            x, layout = self.prompts(x, layout)  # N D
        mask = token_mask(layout, present)  # N
        routings, layouts = [], []
        run = partial(run_block, policy=self.recompute)
        for number, block in enumerate(self.blocks):
            seen = layout
            if draw is not None and self.drop_path and self.training:
                images = choose(layout, self.drop_path, draw, f"stage {self.index}, block {number}")
                x, routing, seen = run_on_some(partial(run, block), x, layout, mask, images)
            else:
                x, routing = run(block, x, layout, mask)
            if routing is not None:
                routings.append(routing)
                layouts.append(seen.with_prefix(0) if block is self.blocks[-1] else seen)
        return x, routings, layouts


class Backbone(nn.Module):
    """Swin V2 blocks, then plain transformer blocks, with adaptive patch merging between the
    stages.

    ``moe_factory(width, block)`` builds the mixture of experts of a block (counted over all stages)
    in ``spec.moe``; see ``models.moe.layer`` for its contract. It is needed only if the spec has
    one. ``recompute``: one of ``models.recompute.POLICIES``. 661.40 M parameters without experts, 1994.10 M
    with them, prompts not counted (table 6).
    """

    def __init__(
        self,
        spec: ModelSpec,
        moe_factory: Callable[[int, int], nn.Module] | None = None,
        *,
        recompute: str = NONE,
    ):
        super().__init__()
        if spec.moe is not None and moe_factory is None:
            raise ModelError(
                f"backbone: expected a moe_factory for the experts in blocks {spec.moe.blocks}, found "
                "none; pass one, or a spec with moe=None"
            )
        check_policy(recompute)
        self.halving = {name: modality.merge for name, modality in spec.modalities.items()}
        self.stages = nn.ModuleList()
        block = 0
        for index, (width, depth) in enumerate(zip(spec.widths, spec.depths)):
            ffns = [_ffn(spec, width, block + i, moe_factory) for i in range(depth)]
            self.stages.append(Stage(spec, index, ffns, recompute=recompute))
            block += depth
        self.merges = nn.ModuleList(PatchMerging(width) for width in spec.widths[:-1])
        self.norm = nn.LayerNorm(spec.widths[-1])

    def forward(
        self, tokens: Tensor, layout: Layout, present: Sequence[Tensor], draw: Draw | None = None
    ) -> tuple[Stages, list[Routing], list[Layout]]:
        """One pass over the images of all groups.

        ``tokens`` (N, widths[0]) packed, ``layout`` its table without prompts, ``present`` one
        (images,) bool a group: False for an image without any valid pixel, whose tokens no expert
        serves. ``draw``: in training mode each block leaves out the share ``spec.drop_path`` of the
        images; None: every block runs on all of them.

        Returns the packed output and layout of every stage, the last one normalised, prompts
        dropped; the routing of every expert layer; and the layout that each of these layers saw.
        Raises ModelError where the arguments do not fit each other.
        """
        self._check(tokens, layout, present)
        x, stages, routings, layouts = tokens, [], [], []
        for index, stage in enumerate(self.stages):
            if index:
                halve = [self.halving[group.modality][index - 1] for group in layout.groups]
                x, layout = self.merges[index - 1](x, layout, halve)  # N D
            x, found, seen = stage(x, layout, present, draw)  # N D
            routings += found
            layouts += seen
            stages.append((x, layout))
        stages[-1] = (self.norm(x), layout)
        return stages, routings, layouts

    def _check(self, tokens: Tensor, layout: Layout, present: Sequence[Tensor]) -> None:
        """The table must describe the tensors."""
        unknown = sorted({group.modality for group in layout.groups} - set(self.halving))
        if unknown:
            raise ModelError(
                f"backbone: expected modalities among {list(self.halving)}, found {unknown}"
            )
        if tokens.shape[0] != layout.tokens or any(group.prefix for group in layout.groups):
            raise ModelError(
                f"backbone: expected {layout.tokens} tokens as in the layout, without prompts, found "
                f"{tokens.shape[0]} tokens and prompts {[group.prefix for group in layout.groups]}"
            )
        images = [group.images for group in layout.groups]
        if [tuple(p.shape) for p in present] != [(n,) for n in images]:
            raise ModelError(
                f"backbone: expected present to have one flag an image, {images} by group, found shapes "
                f"{[tuple(p.shape) for p in present]}"
            )


def _ffn(
    spec: ModelSpec, width: int, block: int, moe_factory: Callable[[int, int], nn.Module] | None
) -> nn.Module:
    """The feed-forward network of a block, dense or a mixture."""
    if spec.moe is not None and block in spec.moe.blocks:
        return moe_factory(width, block)
    return FeedForward(width, spec.mlp_ratio * width)


def expert_load(
    routings: Sequence[Routing], layouts: Sequence[Layout], experts: int, modalities: Sequence[str]
) -> Tensor:
    """Tokens that chose each expert, by layer and modality: (layers, modalities, E) int64. Prompts
    count too.

    ``modalities`` gives the order of the second axis. The shape depends on the arguments' lengths
    alone, so that ranks can add theirs. Raises ModelError without routings.
    """
    if not routings:
        raise ModelError(
            "expert_load: expected the routing of at least one expert layer, found none"
        )
    load = []
    for routing, layout in zip(routings, layouts, strict=True):
        modality = torch.cat(
            [
                routing.expert.new_full((group.tokens,), modalities.index(group.modality))
                for group in layout.groups
            ]
        )  # N
        valid = routing.expert >= 0  # N, masked tokens chose none
        # masked tokens fall into a last bin of their own, which keeps the shapes fixed
        bins = (modality * experts + routing.expert).where(valid, len(modalities) * experts)  # N
        counts = bins.new_zeros(len(modalities) * experts + 1)  # modalities x E + 1
        counts.scatter_add_(
            0, bins, torch.ones_like(bins)
        )  # unlike bincount it need not wait for the device
        load.append(counts[:-1].view(len(modalities), experts))
    return torch.stack(load)
