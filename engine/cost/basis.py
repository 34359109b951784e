"""What the FLOPs of a step count, and under which assumptions."""

from dataclasses import dataclass

from data.tiles.classes import NAMES
from engine.config.settings import Settings
from engine.cost.count import SAMPLES, TILE_CELLS, workload


@dataclass(frozen=True)
class ViewBasis:
    """The views of one size."""

    views: int
    pixels: dict[str, int]  # along a side, by modality
    fusion_grid: int  # cells along a side


@dataclass(frozen=True)
class RowBasis:
    """The samples whose views say how many rows go through the heads."""

    samples_drawn: int
    tile_cells: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class Basis:
    """Everything that the numbers depend on; the names are those of the JSON object."""

    counted: str = "matrix products of one sample, a multiply-add as 2 FLOPs"
    not_counted: str = (
        "norms, softmax, activations, sampling, look-ups, optimizer, teacher's average, text tower "
        "(once, before training), empty slots of the experts' buffers"
    )
    present: str = "all modalities and frames, every pixel valid; no token dropped by the experts"
    backward: str = (
        "one product for every factor that needs a gradient: 2 x forward, less where a factor is "
        "data, a teacher's or fixed"
    )
    shared: str = (
        "what is computed once a call (position tables, bias networks, prompts) is counted in "
        "every sample"
    )
    views: dict[str, ViewBasis]
    frames: dict[str, int]  # by modality
    rows_of_heads: RowBasis
    text_classes: int
    recompute: str
    drop_path: float

    def lines(self) -> list[str]:
        """The basis in words."""
        lines = [
            "Basis",
            f"  counted      {self.counted}",
            f"  not counted  {self.not_counted}",
            f"  present      {self.present}",
            f"  backward     {self.backward}",
            f"  shared       {self.shared}",
        ]
        for size, view in self.views.items():
            pixels = ", ".join(f"{name} {side} x {side}" for name, side in view.pixels.items())
            lines.append(
                f"  {size:12} {view.views} views, in pixels {pixels}; "
                f"fusion grid {view.fusion_grid} x {view.fusion_grid}"
            )
        frames = ", ".join(f"{count} of {name}" for name, count in self.frames.items())
        rows = self.rows_of_heads
        lines += [
            f"  frames       {frames}",
            f"  head rows    mean of {rows.samples_drawn} samples, views drawn with seed "
            f"{rows.seed} on tiles of {rows.tile_cells} cells",
            f"  text         {self.text_classes} classes",
            f"  recomputed   logits of the heads; activation checkpointing: {self.recompute}",
        ]
        if self.drop_path:
            lines.append(f"  drop path    {self.drop_path}: what it saves is not taken off")
        return lines


def basis(settings: Settings) -> Basis:
    """The basis of the costs of a run's step."""
    work = workload(settings)
    frames = {}
    for name, modality in settings.model.modalities.items():
        frames[name] = modality.frames
    views = {}
    for size, (count, sides) in work.sizes.items():
        pixels = {name: sides[name] for name in settings.model.modalities}
        views[size] = ViewBasis(count, pixels, work.fusion_side(size))
    return Basis(
        views=views,
        frames=frames,
        rows_of_heads=RowBasis(SAMPLES, TILE_CELLS, settings.seed),
        text_classes=len(NAMES),
        recompute=settings.recompute,
        drop_path=settings.model.drop_path,
    )
