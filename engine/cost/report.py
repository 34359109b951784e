"""The FLOPs of a training step for people and programs: tables and plain values."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.config.load import Config, load
from engine.cost.basis import basis
from engine.cost.count import GIGA, PASSES, StepCosts, StepFlops, step_costs
from engine.cost.figure import picture
from engine.cost.module_table import ModuleTable
from engine.errors import ConfigError
from engine.plot_file import check_plot, save_plot

CONFIGS = Path(__file__).resolve().parents[2] / "ds_configs"
PRESETS = {"paper": "paper_128gpu.json", "one_gpu": "one_gpu.json", "demo": "demo_cpu.json"}
TERA = 1e12
# What the paper reports on a sample, and the GPU that it was trained on: H20, dense bf16.
PAPER_STUDENT_FORWARD = 8109.52 * GIGA
PAPER_GPU_SECONDS = 0.2607
PAPER_PEAK = 148 * TERA


def flops_command(
    *,
    preset: str | None,
    path: Path | None,
    overrides: Sequence[str],
    plot: Path | None,
) -> tuple[str, dict]:
    """Count the FLOPs of a step of a preset or configuration file, and draw them.

    Args:
        preset: one of ``PRESETS``, or None.
        path: configuration file, or None.
        overrides: ``place=value`` of the configuration.
        plot: file for the picture.

    Returns:
        The tables for a terminal, and all figures as plain values.

    Raises:
        ConfigError: an unknown preset, both or none of preset and file, a wrong configuration, or
            a picture that cannot be written.
    """
    path = _configuration(preset, path)
    check_plot(plot)
    config = load(path, list(overrides))
    report = CostReport(
        name=" ".join([path.name, *overrides]),
        config=config,
        costs=step_costs(config.settings),
        beside_paper=preset == "paper",
    )
    save_plot(plot, lambda: picture(report.name, config.settings, report.costs))
    return report.text(), report.record()


def _configuration(preset: str | None, path: Path | None) -> Path:
    """The configuration file that is meant."""
    if preset is not None and path is not None:
        raise ConfigError("flops: expected either --preset or --config, found both")
    if path is not None:
        return path
    if preset is None:
        raise ConfigError("flops: expected either --preset or --config, found neither")
    if preset not in PRESETS:
        raise ConfigError(f"--preset: expected one of {', '.join(PRESETS)}, found {preset!r}")
    return CONFIGS / PRESETS[preset]


@dataclass(frozen=True)
class PaperComparison:
    """What the paper reports, and what it means for our count."""

    student_forward: float
    gpu_seconds: float
    peak: float
    student_forward_ratio: float  # ours / theirs
    flops_per_gpu_second: float
    share_of_peak: float

    @classmethod
    def of(cls, flops: StepFlops) -> "PaperComparison":
        """Compare the FLOPs of one sample."""
        rate = flops.model / PAPER_GPU_SECONDS
        return cls(
            student_forward=PAPER_STUDENT_FORWARD,
            gpu_seconds=PAPER_GPU_SECONDS,
            peak=PAPER_PEAK,
            student_forward_ratio=flops.student_forward / PAPER_STUDENT_FORWARD,
            flops_per_gpu_second=rate,
            share_of_peak=rate / PAPER_PEAK,
        )

    def lines(self, student_forward: float) -> list[str]:
        """The comparison in words; ``student_forward`` is our count."""
        return [
            f"Student forward {student_forward / GIGA:.2f} GFLOPs, the paper's "
            f"{self.student_forward / GIGA} on an unstated basis: ratio "
            f"{self.student_forward_ratio:.3f}",
            f"In the paper's {self.gpu_seconds} GPU-seconds a sample that is "
            f"{self.flops_per_gpu_second / TERA:.1f} TFLOP/s, {100 * self.share_of_peak:.1f} % of "
            f"an H20 ({self.peak / TERA:.0f} TFLOP/s dense bf16)",
        ]


@dataclass(frozen=True)
class CostReport:
    """The costs of a step of one configuration."""

    name: str
    config: Config
    costs: StepCosts
    beside_paper: bool  # whether the paper reports on this configuration

    def record(self) -> dict:
        """Everything as plain values; FLOPs, not GFLOPs."""
        flops = self.costs.flops
        batch = self.config.batch_size
        entries = []
        for part, costs in (("forward", self.costs.forward), ("losses", self.costs.losses)):
            for cost in costs:
                entries.append({"part": part, **asdict(cost), "backward": cost.backward})
        comparison = None
        if self.beside_paper:
            comparison = asdict(PaperComparison.of(flops))
        return {
            "configuration": self.name,
            "basis": asdict(basis(self.config.settings)),
            "sample": {**asdict(flops), "model": flops.model, "hardware": flops.hardware},
            "batch": {
                "samples": batch,
                "model": batch * flops.model,
                "hardware": batch * flops.hardware,
            },
            "paper": comparison,
            "costs": entries,
        }

    def text(self) -> str:
        """Tables and basis for a terminal."""
        flops = self.costs.flops
        batch = self.config.batch_size
        digits = 4
        if flops.student_forward > 100 * GIGA:
            digits = 1
        settings = self.config.settings
        lines = [
            f"Cost of a training step: {self.name}",
            "",
            "Forward of one model over all views, GFLOPs a sample",
            *ModuleTable(self.costs.forward, settings, digits).lines(),
            "",
            "Heads and losses, forward of both models, GFLOPs a sample",
            *ModuleTable(self.costs.losses, settings, digits).lines(),
            "",
            *_pass_table(flops, digits),
            "",
            f"A step of {batch} samples: {batch * flops.model / TERA:,.{digits}f} TFLOPs",
        ]
        if self.beside_paper:
            lines += PaperComparison.of(flops).lines(flops.student_forward)
        lines += ["", *basis(settings).lines()]
        return "\n".join(lines)


def _pass_table(flops: StepFlops, digits: int) -> list[str]:
    """The passes of a step and their sums."""
    rows = {title: getattr(flops, key) for key, title in PASSES.items()}
    rows["model FLOPs"] = flops.model
    rows["hardware FLOPs"] = flops.hardware
    lines = [f"{'Passes of a step':22}{'GFLOPs a sample':>18}{'share':>8}"]
    for title, value in rows.items():
        share = 100 * value / flops.hardware
        lines.append(f"{title:22}{value / GIGA:>18,.{digits}f}{share:>7.1f}%")
    return lines
