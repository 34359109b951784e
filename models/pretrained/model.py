"""A trained model for downstream work: images in, feature pyramid, fused map and vectors out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.features import FUSED, Views, pooled
from models.skysense import SkySense
from models.spec import CELL_METRES, ModelSpec

PARTS = ("tokenizers", "backbone", "fusion", "context")
_SIZE = "input"  # the one view size of a call


@dataclass
class Maps:
    """What one call gives. T stands only where the input of that modality had it."""

    pyramid: dict[str, list[Tensor]]  # modality -> four maps B (T) D h w, after stages 1 to 4
    valid: dict[str, Tensor]  # modality -> B (T) h w bool, of the last map
    fused: (
        Tensor | None
    )  # B D g g: all dates and modalities at each cell, geo context behind; None without fusion
    vectors: dict[
        str, Tensor
    ]  # modality or "fused" -> B D, mean over valid cells and frames; zero without any


class Pretrained(nn.Module):
    """Tokenizers and backbone, with fusion and geo context if the specification has them
    (supplement, section B).

    ``trunk`` is the model itself, ``report`` says how its weights came about. Parts named in
    ``frozen`` have no gradients and stay in eval mode. In training mode experts may drop tokens, as
    in pre-training.
    """

    def __init__(self, trunk: SkySense, frozen: Sequence[str] = (), report: Sequence[str] = ()):
        super().__init__()
        unknown = sorted(set(frozen) - set(PARTS))
        if unknown:
            raise ModelError(
                f"frozen: expected some of {', '.join(PARTS)}, found {', '.join(unknown)}"
            )
        self.trunk = trunk
        self.frozen = tuple(name for name in frozen if getattr(trunk, name) is not None)
        self.report = list(report)
        for name in self.frozen:
            getattr(trunk, name).requires_grad_(False)
        self.eval()

    @property
    def spec(self) -> ModelSpec:
        """Every size of the model."""
        return self.trunk.spec

    def train(self, mode: bool = True) -> "Pretrained":
        """Training mode for all parts that are not frozen."""
        super().train(mode)
        for name in self.frozen:
            getattr(self.trunk, name).eval()
        return self

    def forward(
        self,
        images: Mapping[str, Tensor],
        days: Mapping[str, Tensor] | None = None,
        valid: Mapping[str, Tensor] | None = None,
        region: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Maps:
        """Features of B places.

        Args: images: modality -> B C H W, or B T C H W for a series; normalised
            (``data.tiles.modalities.normalise``). Sides
                are multiples of the patch, 4 pixels. Any set of the model's modalities, any number
                of frames.
            days: modality -> B, or B T, int64, day of the year - 1; needed with fusion only.
            valid: modality -> B (T) n m bool on any grid that divides the image; without it a pixel
                is valid if all its bands are finite.
            region: B int64, rows of the region table (``engine.pretrained.weights.regions``), -1
                for none. None: no context.
            grid: rows and columns of the fused map. None: ``fusion.cell_metres`` of the
                specification, which all images must agree on.

        Raises:
            ModelError: one line for what does not fit.
        """
        series = {name: x.dim() == 5 for name, x in images.items()}
        views = self._views(images, days or {}, valid or {}, region, grid)
        stages = self.trunk.encode(views)[0]
        found = [self.trunk.unpack(views, *stage)[_SIZE] for stage in stages]
        last = found[-1]
        vectors = {name: pooled(last, name)[0] for name in images}
        pyramid = {
            name: [_picture(stage.maps[name], series[name]) for stage in found] for name in images
        }
        masks = {
            name: last.valid[name][:, 0] if series[name] else last.valid[name][:, 0, 0]
            for name in images
        }
        fused = None
        if self.trunk.fusion is not None:
            self.trunk.fuse(views, {_SIZE: last})
            fused = last.maps[FUSED][:, 0, 0].movedim(-1, 1)  # B D g g
            vectors[FUSED] = pooled(last, FUSED)[0]
        return Maps(pyramid, masks, fused, vectors)

    def _views(
        self,
        images: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
        region: Tensor | None,
        grid: tuple[int, int] | None,
    ) -> dict[str, Views]:
        """The call's arguments as the one view that the trunk sees."""
        self._check(images, valid)
        frames = {
            name: x if x.dim() == 5 else x[:, None] for name, x in images.items()
        }  # B T C H W
        masks = {
            name: valid[name].reshape(*x.shape[:2], *valid[name].shape[-2:])
            if name in valid
            else x.isfinite().all(2)
            for name, x in frames.items()
        }  # B T n m
        first = next(iter(frames.values()))
        if region is None:
            region = torch.full((first.shape[0],), -1, device=first.device)
        dates = {}
        if self.trunk.fusion is not None:
            dates = {name: self._dates(name, x, days) for name, x in frames.items()}
            grid = grid or self._grid(frames)
        return {
            _SIZE: Views(
                {name: x[:, None] for name, x in frames.items()},
                {name: mask[:, None] for name, mask in masks.items()},
                dates,
                region,
                grid,
            )
        }

    def _check(self, images: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> None:
        """Every image must be one that the model can cut into patches."""
        known, patch = self.spec.modalities, self.spec.patch
        if not images or not set(images) <= set(known):
            raise ModelError(
                f"images: expected some of {', '.join(known)}, found {', '.join(images) or 'none'}"
            )
        for name, x in images.items():
            bands = known[name].bands
            if (
                x.dim() not in (4, 5)
                or x.shape[-3] != bands
                or x.shape[-1] % patch
                or x.shape[-2] % patch
            ):
                raise ModelError(
                    f"images {name}: expected B C H W or B T C H W with {bands} bands and sides that are "
                    f"multiples of {patch}, found {tuple(x.shape)}; crop or pad the image"
                )
            if name in valid and (
                x.shape[-2] % valid[name].shape[-2] or x.shape[-1] % valid[name].shape[-1]
            ):
                raise ModelError(
                    f"valid {name}: expected a grid that divides {tuple(x.shape[-2:])} pixels, found "
                    f"{tuple(valid[name].shape[-2:])}"
                )

    def _dates(self, name: str, frames: Tensor, days: Mapping[str, Tensor]) -> Tensor:
        """Days (B, T) of a modality's frames."""
        shape = tuple(frames.shape[:2])
        if name not in days or days[name].numel() != frames.shape[0] * frames.shape[1]:
            found = tuple(days[name].shape) if name in days else "none"
            raise ModelError(
                f"days {name}: expected the day of the year - 1 of each frame, shape {shape}, found "
                f"{found}; give it, or load the model with fusion=False"
            )
        return days[name].reshape(shape)

    def _grid(self, frames: Mapping[str, Tensor]) -> tuple[int, int]:
        """Rows and columns of the fusion grid, from the ground that the images cover."""
        metres = {
            name: tuple(
                side / self.spec.modalities[name].pixels_per_cell * CELL_METRES
                for side in x.shape[-2:]
            )
            for name, x in frames.items()
        }
        first = next(iter(metres.values()))
        if any(abs(a - b) > CELL_METRES for sides in metres.values() for a, b in zip(sides, first)):
            raise ModelError(
                f"images: expected the same ground in all modalities, found {metres} in metres; crop "
                "them, or give the rows and columns of the fused map as grid"
            )
        rows, columns = (max(1, round(side / self.spec.fusion.cell_metres)) for side in first)
        return rows, columns


def _picture(maps: Tensor, series: bool) -> Tensor:
    """B 1 T h w D -> B T D h w, without T for a single image."""
    maps = maps[:, 0].movedim(-1, 2)  # B T D h w
    return maps if series else maps[:, 0]
