"""The cost of a training step for people and programs: tables and JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from data.tiles.classes import NAMES
from engine.config.load import Config, load
from engine.cost.count import (
    GIGA,
    PASSES,
    SAMPLES,
    TILE_CELLS,
    StepCosts,
    StepFlops,
    step_costs,
    view_sizes,
)
from engine.cost.figure import picture
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot
from models.count.flops import SHARED, Cost, fusion_side
from models.features import FUSED

CONFIGS = Path(__file__).resolve().parents[2] / "ds_configs"
PRESETS = {"paper": "paper_128gpu.json", "one_gpu": "one_gpu.json", "demo": "demo_cpu.json"}
TERA = 1e12
# What the paper reports, and the GPU it was trained on: H20, dense bf16.
PAPER = {"student_forward": 8109.52 * GIGA, "gpu_seconds": 0.2607, "peak": 148 * TERA}


def flops_command(
    *,
    preset: str | None,
    path: Path | None,
    overrides: Sequence[str],
    plot: Path | None,
) -> tuple[str, dict]:
    """Count the cost of a step of a preset or configuration file, and draw it.

    Returns:
        The tables for a terminal, and all figures as plain values.

    Raises:
        ConfigError: An unknown preset, both or none of preset and file, a wrong configuration, or
            a picture that cannot be written.
    """
    if (preset is None) == (path is None):
        raise ConfigError(
            f"flops: expected either --preset or --config, found {'both' if preset else 'neither'}"
        )
    if preset is not None and preset not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    check_plot(plot)
    path = CONFIGS / PRESETS[preset] if path is None else path
    found = load(path, list(overrides))
    costs = step_costs(found.settings)
    name = " ".join([path.name, *overrides])
    paper = preset == "paper"
    save_plot(plot, lambda: picture(name, found.settings, costs))
    return text(name, found, costs, paper), record(name, found, costs, paper)


def record(name: str, found: Config, costs: StepCosts, paper: bool) -> dict:
    """Everything as plain values; FLOPs, not GFLOPs."""
    flops, batch = costs.flops, found.batch_size
    entries = [
        {"part": part, **asdict(cost), "backward": cost.backward}
        for part in ("forward", "losses")
        for cost in getattr(costs, part)
    ]
    return {
        "configuration": name,
        "basis": basis(found),
        "sample": {**asdict(flops), "model": flops.model, "hardware": flops.hardware},
        "batch": {
            "samples": batch,
            "model": batch * flops.model,
            "hardware": batch * flops.hardware,
        },
        "paper": compared(flops) if paper else None,
        "costs": entries,
    }


def compared(flops: StepFlops) -> dict[str, float]:
    """Beside the paper: the student's forward, and what its GPU time means for our count."""
    rate = flops.model / PAPER["gpu_seconds"]
    return {
        **PAPER,
        "student_forward_ratio": flops.student_forward / PAPER["student_forward"],
        "flops_per_gpu_second": rate,
        "share_of_peak": rate / PAPER["peak"],
    }


def basis(found: Config) -> dict:
    """What was counted, and under which assumptions."""
    model, sizes = found.settings.model, view_sizes(found.settings.data.views)
    return {
        "counted": "matrix products of one sample, a multiply-add as 2 FLOPs",
        "not_counted": "norms, softmax, activations, sampling, look-ups, optimizer, teacher's average, text tower "
        "(once, before training), empty slots of the experts' buffers",
        "present": "all modalities and frames, every pixel valid; no token dropped by the experts",
        "backward": "one product for every factor that needs a gradient: 2 x forward, less where a factor is data, a "
        "teacher's or fixed",
        "shared": "what is computed once a call (position tables, bias networks, prompts) is counted in every sample",
        "views": {
            size: {
                "views": views,
                "cells": cells,
                "pixels": {name: cells * m.pixels_per_cell for name, m in model.modalities.items()},
                "fusion_grid": fusion_side(model, cells),
            }
            for size, (views, cells) in sizes.items()
        },
        "frames": {name: modality.frames for name, modality in model.modalities.items()},
        "fusion_cell_metres": model.fusion.cell_metres,
        "rows_of_heads": {
            "samples_drawn": SAMPLES,
            "tile_cells": TILE_CELLS,
            "seed": found.settings.seed,
        },
        "text_classes": len(NAMES),
        "recompute": found.settings.recompute,
        "drop_path": found.settings.model.drop_path,
    }


def text(name: str, found: Config, costs: StepCosts, paper: bool) -> str:
    """Tables and basis for a terminal."""
    flops, batch = costs.flops, found.batch_size
    digits = 1 if flops.student_forward > 100 * GIGA else 4
    lines = [
        f"Cost of a training step: {name}",
        "",
        "Forward of one model over all views, GFLOPs a sample",
        *_table(costs.forward, found, digits),
        "",
        "Heads and losses, forward of both models, GFLOPs a sample",
        *_table(costs.losses, found, digits),
        "",
        f"{'Passes of a step':22}{'GFLOPs a sample':>18}{'share':>8}",
    ]
    for key, title in PASSES.items():
        lines.append(_pass(title, getattr(flops, key), flops.hardware, digits))
    lines += [
        _pass("model FLOPs", flops.model, flops.hardware, digits),
        _pass("hardware FLOPs", flops.hardware, flops.hardware, digits),
        "",
        f"A step of {batch} samples: {batch * flops.model / TERA:,.{digits}f} TFLOPs",
    ]
    if paper:
        beside = compared(flops)
        lines += [
            f"Student forward {flops.student_forward / GIGA:.2f} GFLOPs, the paper's {PAPER['student_forward'] / GIGA} "
            f"on an unstated basis: ratio {beside['student_forward_ratio']:.3f}",
            f"In the paper's {PAPER['gpu_seconds']} GPU-seconds a sample that is "
            f"{beside['flops_per_gpu_second'] / TERA:.1f} TFLOP/s, {100 * beside['share_of_peak']:.1f} % of an H20 "
            f"({PAPER['peak'] / TERA:.0f} TFLOP/s dense bf16)",
        ]
    return "\n".join(lines + ["", *_basis_lines(basis(found))])


def _pass(title: str, value: float, whole: float, digits: int) -> str:
    """A line of the last table."""
    return f"{title:22}{value / GIGA:>18,.{digits}f}{100 * value / whole:>7.1f}%"


def _basis_lines(found: dict) -> list[str]:
    """The basis in words."""
    frames = ", ".join(f"{count} of {name}" for name, count in found["frames"].items())
    lines = [
        "Basis",
        f"  counted      {found['counted']}",
        f"  not counted  {found['not_counted']}",
        f"  present      {found['present']}",
        f"  backward     {found['backward']}",
        f"  shared       {found['shared']}",
    ]
    for size, view in found["views"].items():
        pixels = ", ".join(f"{name} {side} x {side}" for name, side in view["pixels"].items())
        lines.append(
            f"  {size:12} {view['views']} views of {view['cells']} x {view['cells']} cells: {pixels}; "
            f"fusion grid {view['fusion_grid']} x {view['fusion_grid']}"
        )
    rows = found["rows_of_heads"]
    return lines + [
        f"  frames       {frames}; fusion cells of {found['fusion_cell_metres']:g} m",
        f"  head rows    mean of {rows['samples_drawn']} samples, views drawn with seed {rows['seed']} on tiles of "
        f"{rows['tile_cells']} cells",
        f"  text         {found['text_classes']} classes",
        f"  recomputed   logits of the heads; activation checkpointing: {found['recompute']}",
        *(
            [f"  drop path    {found['drop_path']}: what it saves is not taken off"]
            if found["drop_path"]
            else []
        ),
    ]


def _table(costs: Sequence[Cost], found: Config, digits: int) -> list[str]:
    """Modules down; view sizes and their modalities across; totals and shares at the edge."""
    settings = found.settings
    columns = [
        (size, name)
        for size in view_sizes(settings.data.views)
        for name in (*settings.model.modalities, FUSED)
    ]
    columns += [(SHARED, SHARED)] if any(cost.view == SHARED for cost in costs) else []
    whole = sum(cost.flops for cost in costs)

    def cell(rows: Sequence[Cost]) -> str:
        return f"{sum(cost.flops for cost in rows) / GIGA:>9,.{digits}f}" if rows else f"{'-':>9}"

    def line(title: str, rows: Sequence[Cost]) -> str:
        cells = [
            cell([cost for cost in rows if (cost.view, cost.modality) == column])
            for column in columns
        ]
        share = sum(cost.flops for cost in rows) / whole
        return f"{title:22}" + "".join(cells) + cell(rows) + f"{100 * share:>7.1f}%"

    views = "".join(f"{'' if view == SHARED else view:>9}" for view, _ in columns)
    names = "".join(f"{name:>9}" for _, name in columns)
    modules = dict.fromkeys(cost.module for cost in costs)
    return [
        f"{'':22}{views}",
        f"{'module':22}{names}{'total':>9}{'share':>8}",
        *(line(module, [cost for cost in costs if cost.module == module]) for module in modules),
        line("total", costs),
    ]
