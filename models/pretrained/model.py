"""A trained model for downstream work: images in, feature pyramid, fused map and vectors out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import ModelError
from models.features import FUSED, Features, Views, check_normalised, pooled
from models.skysense import SkySense
from models.spec import ModelSpec

PARTS = ("tokenizers", "backbone", "fusion", "context")
_SIZE = "input"  # the one view size of a call


@dataclass
class Maps:
    """Features of one call. T is there only for a modality whose images had it."""

    pyramid: dict[str, list[Tensor]]  # modality -> four maps B (T) D h w, after stages 1 to 4
    valid: dict[str, Tensor]  # modality -> B (T) h w bool, of the last map
    # B D g g: all dates and modalities at each cell, geo context last; None without fusion
    fused: Tensor | None
    # modality or "fused" -> B D, mean over valid cells and frames; zero without any
    vectors: dict[str, Tensor]


class Pretrained(nn.Module):
    """Tokenizers and backbone, with fusion and geo context if the specification has them.

    See section B of the supplement. In training mode experts may drop tokens, as in pre-training.

    Args:
        trunk: the model itself.
        frozen: names of ``PARTS`` that have no gradients and stay in eval mode.
        report: lines that say where its weights come from.

    Raises:
        ModelError: a frozen part is unknown.
    """

    def __init__(self, trunk: SkySense, frozen: Sequence[str] = (), report: Sequence[str] = ()):
        super().__init__()
        if isinstance(frozen, str):
            raise ModelError(
                f"frozen: expected several names, found one string; write ({frozen!r},) for one "
                "part"
            )
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
        """Set training mode for all parts that are not frozen."""
        super().train(mode)
        for name in self.frozen:
            getattr(self.trunk, name).eval()
        return self

    def forward(
        self,
        images: Mapping[str, Tensor],
        days: Mapping[str, Tensor] | None = None,
        *,
        valid: Mapping[str, Tensor] | None = None,
        region: Tensor | None = None,
        grid: tuple[int, int] | None = None,
    ) -> Maps:
        """Features of B places.

        Args:
            images: modality -> (B, C, H, W), or (B, T, C, H, W) for a series; normalised by
                ``data.tiles.modalities.normalise``. Sides are multiples of the patch, 4 pixels. Any
                of the model's modalities, any number of frames.
            days: modality -> (B,) or (B, T) int64, day of the year - 1; needed with fusion only.
            valid: modality -> (B, (T,) n, m) bool on any grid that divides the image. Without it a
                pixel is valid if all its bands are finite.
            region: (B,) int64, rows of the region table (``engine.pretrained.weights.regions``), -1
                for none. None: no context.
            grid: rows and columns of the fused map. None: ``fusion.cells_per_token`` of the
                specification times those of the coarsest map.

        Raises:
            ModelError: the images, masks or days do not fit the model or each other.
        """
        self._check_images(images)
        if self.trunk.fusion is not None and grid is None:
            _check_proportions(images)
        _check_masks(images, valid or {})
        views = self._views(images, days or {}, valid or {}, region=region, grid=grid)
        stages = []
        for tokens, layout in self.trunk.encode(views)[0]:
            stages.append(self.trunk.unpack(views, tokens, layout)[_SIZE])
        last = stages[-1]
        maps = Maps(pyramid={}, valid={}, fused=None, vectors={})
        for name, x in images.items():
            series = _is_series(x)
            maps.pyramid[name] = [_picture(stage.maps[name], series) for stage in stages]
            maps.valid[name] = _mask(last, name, series)
            maps.vectors[name] = pooled(last, name)[0]
        if self.trunk.fusion is not None:
            self.trunk.fuse(views, {_SIZE: last})
            maps.fused = last.maps[FUSED][:, 0, 0].movedim(-1, 1)  # B D g g
            maps.vectors[FUSED] = pooled(last, FUSED)[0]
        return maps

    def _views(
        self,
        images: Mapping[str, Tensor],
        days: Mapping[str, Tensor],
        valid: Mapping[str, Tensor],
        *,
        region: Tensor | None,
        grid: tuple[int, int] | None,
    ) -> dict[str, Views]:
        """The arguments of a call as the one view that the trunk sees."""
        if region is None:
            first = next(iter(images.values()))
            region = torch.full((first.shape[0],), -1, device=first.device)  # B
        fused = self.trunk.fusion is not None
        views = Views(images={}, valid={}, days={}, region=region, grid=grid)
        for name, x in images.items():
            frames = x if _is_series(x) else x[:, None]  # B T C H W
            if name in valid:
                rows, columns = valid[name].shape[-2:]
                mask = valid[name].reshape(*frames.shape[:2], rows, columns)  # B T n m
            else:
                mask = frames.isfinite().all(2)  # B T H W
            views.images[name] = frames[:, None]  # B 1 T C H W
            views.valid[name] = mask[:, None]  # B 1 T n m
            if fused:
                views.days[name] = _dates(name, frames, days)[:, None]  # B 1 T
        return {_SIZE: views}

    def _check_images(self, images: Mapping[str, Tensor]) -> None:
        """Raise ModelError for images that the model cannot cut into patches."""
        known = self.spec.modalities
        patch = self.spec.patch
        if isinstance(images, Tensor):
            raise ModelError(_explain_tensor(images, self.spec))
        if not images or not set(images) <= set(known):
            raise ModelError(
                f"images: expected some of {', '.join(known)}, found {', '.join(images) or 'none'}"
            )
        for name, x in images.items():
            check_normalised(x, f"images {name}")
            bands = known[name].bands
            right = x.dim() in (4, 5) and x.shape[-3] == bands
            if not right or x.shape[-1] % patch or x.shape[-2] % patch:
                raise ModelError(
                    f"images {name}: expected B C H W or B T C H W with {bands} bands and sides "
                    f"that are multiples of {patch}, found {tuple(x.shape)}; crop or pad the image"
                )


def _explain_tensor(images: Tensor, spec: ModelSpec) -> str:
    """What to do with images that nobody has named the sensor of."""
    bands = images.shape[-3] if images.dim() in (4, 5) else None
    fitting = [name for name, modality in spec.modalities.items() if modality.bands == bands]
    name = next(iter(fitting or spec.modalities))
    return (
        f"images: expected a dictionary from sensor ({', '.join(spec.modalities)}) to images, "
        f"found a tensor of the shape {tuple(images.shape)}, with the bands of "
        f"{' or '.join(fitting) or 'none of them'}; call model({{{name!r}: images}})"
    )


def _is_series(images: Tensor) -> bool:
    """Whether the images of a modality have a time axis."""
    return images.dim() == 5


def _check_proportions(images: Mapping[str, Tensor]) -> None:
    """Raise ModelError for images that cannot show the same ground."""
    sides = {name: tuple(x.shape[-2:]) for name, x in images.items()}
    first_height, first_width = next(iter(sides.values()))
    for height, width in sides.values():
        zoom = height / first_height
        if abs(width - zoom * first_width) > max(1.0, zoom):  # pixels: a rounded side
            raise ModelError(
                f"images: expected the same ground in all modalities, found sides of {sides}; crop "
                "them, or give the rows and columns of the fused map as grid"
            )


def _check_masks(images: Mapping[str, Tensor], valid: Mapping[str, Tensor]) -> None:
    """Raise ModelError for a mask whose grid does not divide its image."""
    for name, x in images.items():
        if name not in valid:
            continue
        height, width = x.shape[-2:]
        rows, columns = valid[name].shape[-2:]
        if height % rows or width % columns:
            raise ModelError(
                f"valid {name}: expected a grid that divides {(height, width)} pixels, "
                f"found {(rows, columns)}"
            )


def _dates(name: str, frames: Tensor, days: Mapping[str, Tensor]) -> Tensor:
    """Days (B, T) of the frames of a modality."""
    shape = tuple(frames.shape[:2])
    if name not in days or days[name].numel() != shape[0] * shape[1]:
        found = tuple(days[name].shape) if name in days else "none"
        raise ModelError(
            f"days {name}: expected the day of the year - 1 of each frame, shape {shape}, "
            f"found {found}; give it, or load the model with fusion=False"
        )
    return days[name].reshape(shape)


def _picture(maps: Tensor, series: bool) -> Tensor:
    """B 1 T h w D -> B T D h w, without T for a single image."""
    maps = maps[:, 0].movedim(-1, 2)  # B T D h w
    return maps if series else maps[:, 0]


def _mask(features: Features, name: str, series: bool) -> Tensor:
    """Validity B T h w of a modality's cells, without T for a single image."""
    mask = features.valid[name][:, 0]  # B T h w
    return mask if series else mask[:, 0]
