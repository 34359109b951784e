"""The unified backbone: four stages that all modalities pass through on one packed axis."""

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor, nn

from models.backbone.feed_forward import FeedForward
from models.backbone.patch_merging import PatchMerging
from models.backbone.position import Positions
from models.backbone.prompts import Prompts
from models.backbone.stochastic_depth import Draw, choose, run_on_some
from models.backbone.swin_v2 import SwinBlock
from models.backbone.transformer import TransformerBlock
from models.errors import ModelError
from models.moe.layer import Routing
from models.packing import Layout, token_mask
from models.recompute import NONE, WINDOWS, check_policy, run_block
from models.spec import ModelSpec

Stages = list[tuple[Tensor, Layout]]  # by stage: packed tokens and their table


class Stage(nn.Module):
    """Blocks of one width; with global attention also a position table and prompts."""

    def __init__(
        self, spec: ModelSpec, index: int, ffns: Sequence[nn.Module], *, recompute: str = NONE
    ):
        """Args: ``index`` counts stages from 0, ``ffns`` are the networks of the blocks."""
        super().__init__()
        self.index = index
        self.recompute = recompute
        if recompute == WINDOWS and index >= spec.window_stages:
            self.recompute = NONE
        self.drop_path = spec.drop_path
        width = spec.widths[index]
        self.positions: Positions | None = None
        if index >= spec.window_stages:
            self.positions = Positions(
                spec.modalities, stage=index - spec.window_stages, width=width
            )
        self.prompts: Prompts | None = None
        if spec.prompts[index]:
            self.prompts = Prompts(tuple(spec.modalities), width=width, count=spec.prompts[index])
        self.blocks = nn.ModuleList()
        for number, ffn in enumerate(ffns):
            last = number == len(ffns) - 1
            self.blocks.append(_block(spec, index, ffn, shifted=number % 2 == 1, last=last))

    def forward(
        self, x: Tensor, layout: Layout, present: Sequence[Tensor], draw: Draw | None = None
    ) -> tuple[Tensor, list[Routing]]:
        """Run the blocks.

        Args:
            x: Packed tokens (N, D) without prompts.
            layout: Their table.
            present: One tensor (images,) bool a group: False for images without a valid pixel.
            draw: In training mode each block leaves out some images; None: it runs on all.

        Returns:
            Packed (N, D) without prompts, and the routing of each MoE layer.
        """
        if self.positions is not None:
            x = self.positions(x, layout)  # N D
        if self.prompts is not None:
            x, layout = self.prompts(x, layout)  # N D
        mask = token_mask(layout, present)  # N
        routings = []
        for number, block in enumerate(self.blocks):
            run = partial(run_block, block, policy=self.recompute)
            if draw is not None and self.drop_path > 0 and self.training:
                name = f"stage {self.index}, block {number}"
                images = choose(layout, rate=self.drop_path, draw=draw, block=name)
                x, routing = run_on_some(run, x, layout, mask, images=images)  # N D
            else:
                x, routing = run(x, layout, mask)  # N D
            if routing is not None:
                routings.append(routing)
        return x, routings


class Backbone(nn.Module):
    """Swin V2 blocks, then plain transformer blocks, with patch merging between the stages.

    It has 661.40 M parameters without experts and 1994.10 M with them, prompts not counted
    (table 6).
    """

    def __init__(
        self,
        spec: ModelSpec,
        moe_factory: Callable[[int, int], nn.Module] | None = None,
        *,
        recompute: str = NONE,
    ):
        """Build all stages.

        Args:
            spec: The sizes.
            moe_factory: Builds a MoE layer from its width and the hidden width of its experts; see
                ``models.moe.layer.MoE``. Needed only if the specification has experts.
            recompute: One of ``models.recompute.POLICIES``.

        Raises:
            ModelError: The factory is missing, or the policy is unknown.
        """
        super().__init__()
        check_policy(recompute)
        self.halving = {name: modality.merge for name, modality in spec.modalities.items()}
        self.stages = nn.ModuleList()
        first_block = 0
        for index, (width, depth) in enumerate(zip(spec.widths, spec.depths)):
            ffns = []
            for block in range(first_block, first_block + depth):
                ffns.append(_ffn(spec, block, width=width, moe_factory=moe_factory))
            self.stages.append(Stage(spec, index, ffns, recompute=recompute))
            first_block += depth
        self.merges = nn.ModuleList(PatchMerging(width) for width in spec.widths[:-1])
        self.norm = nn.LayerNorm(spec.widths[-1])

    def forward(
        self, tokens: Tensor, layout: Layout, present: Sequence[Tensor], draw: Draw | None = None
    ) -> tuple[Stages, list[Routing]]:
        """One pass over the images of all groups.

        Args:
            tokens: Packed (N, widths[0]).
            layout: Their table, without prompts.
            present: One tensor (images,) bool a group: False for an image without any valid pixel,
                whose tokens no expert serves.
            draw: In training mode each block leaves out the share ``spec.drop_path`` of the images;
                None: every block runs on all of them.

        Returns:
            The packed output and table of every stage without prompts, the last one normalised; and
            the routing of every MoE layer.

        Raises:
            ModelError: The arguments do not fit each other.
        """
        self._check(tokens, layout, present)
        x = tokens
        stages: Stages = []
        routings = []
        for index, stage in enumerate(self.stages):
            if index > 0:
                halve = [self.halving[group.modality][index - 1] for group in layout.groups]
                x, layout = self.merges[index - 1](x, layout, halve)  # N D
            x, stage_routings = stage(x, layout, present, draw)  # N D
            routings += stage_routings
            stages.append((x, layout))
        stages[-1] = (self.norm(x), layout)
        return stages, routings

    def _check(self, tokens: Tensor, layout: Layout, present: Sequence[Tensor]) -> None:
        """The table must describe the tensors."""
        unknown = {group.modality for group in layout.groups} - set(self.halving)
        if unknown:
            raise ModelError(
                f"backbone: expected modalities among {list(self.halving)}, found {sorted(unknown)}"
            )
        prefixes = [group.prefix for group in layout.groups]
        if tokens.shape[0] != layout.tokens or any(prefixes):
            raise ModelError(
                f"backbone: expected {layout.tokens} tokens as in the layout, without prompts, "
                f"found {tokens.shape[0]} tokens and prompts {prefixes}"
            )
        images = [group.images for group in layout.groups]
        shapes = [tuple(flags.shape) for flags in present]
        if shapes != [(count,) for count in images]:
            raise ModelError(
                f"backbone: expected present to have one flag an image, {images} by group, found "
                f"shapes {shapes}"
            )


def _block(
    spec: ModelSpec, stage: int, ffn: nn.Module, *, shifted: bool, last: bool
) -> SwinBlock | TransformerBlock:
    """One block of a stage. Window blocks shift their windows if ``shifted``."""
    width = spec.widths[stage]
    if stage >= spec.window_stages:
        return TransformerBlock(width, ffn, head_dim=spec.head_dim, last=last)
    shift = spec.window // 2 if shifted else 0
    return SwinBlock(width, ffn, head_dim=spec.head_dim, window=spec.window, shift=shift)


def _ffn(
    spec: ModelSpec,
    block: int,
    *,
    width: int,
    moe_factory: Callable[[int, int], nn.Module] | None,
) -> nn.Module:
    """The feed-forward network of a block, dense or MoE; blocks are counted over all stages."""
    hidden = spec.mlp_ratio * width
    if spec.moe is None or block not in spec.moe.blocks:
        return FeedForward(width, hidden)
    if moe_factory is None:
        raise ModelError(
            f"backbone: expected a moe_factory for the experts in blocks {spec.moe.blocks}, found "
            "none; pass one, or a spec with moe=None"
        )
    return moe_factory(width, hidden)
