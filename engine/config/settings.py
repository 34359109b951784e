"""The typed ``skysense`` object of a configuration file. Batch size, precision and optimizer are
DeepSpeed's keys."""

from dataclasses import dataclass, field

from data.stream.settings import DataSettings
from models.spec import ModelSpec


@dataclass(frozen=True)
class LossSettings:
    """Weights (supplement, section C) and the settings of the DINO loss."""

    mgcl: float = 1.0
    qsacl: float = 1.0
    ita: float = 1.0
    moe_balance: float = 0.01
    koleo: float = 0.0  # off by default
    student_temperature: float = 0.1
    teacher_temperature: float = 0.07
    teacher_temperature_start: float = 0.04
    teacher_temperature_warmup: int = 30000  # steps
    centring: str = "sinkhorn"  # or "mean": a running mean of the teacher's logits
    centre_momentum: float = 0.9
    sinkhorn_iterations: int = 3
    clusters: int = 16  # object level, N_C
    cluster_epsilon: float = 0.05
    freeze_last_layer: int = 1250  # steps
    text_temperature: float = 0.07

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if self.centring not in ("sinkhorn", "mean"):
            return f"loss.centring: expected 'sinkhorn' or 'mean', found {self.centring!r}"
        return None


@dataclass(frozen=True)
class ScheduleSettings:
    """Functions of the step (supplement, section C). The peak learning rate is the optimizer's
    ``lr``."""

    steps: int = 600_000
    warmup: int = 10_000
    final_lr: float = 1e-6
    final_weight_decay: float = 0.2  # the first value is the optimizer's ``weight_decay``
    ema_start: float = 0.996
    ema_end: float = 1.0

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if not 0 <= self.warmup < self.steps:
            return (
                f"schedule.warmup: expected 0 <= warmup < steps ({self.steps}), found {self.warmup}"
            )
        return None


@dataclass(frozen=True)
class TextSettings:
    """The text tower of the dense image-text alignment."""

    architecture: str = "ViT-H-14"  # an open_clip model name
    weights: str | None = (
        None  # path to open_clip weights; None: a seeded random tower, said in the log
    )


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and how many to keep."""

    every: int = 5000  # steps
    keep: int = 3


@dataclass(frozen=True)
class GuardSettings:
    """When a run counts as failing, and what then happens."""

    action: str = "warn"  # or "stop": save and end the run
    patience: int = (
        50  # steps in a row before a teacher counts as collapsed, or skipped updates as hopeless
    )
    entropy_low: float = 0.01  # share of log K: below it every image falls on one prototype
    entropy_high: float = 0.995  # share of log K: above it the teacher says nothing
    spike: float = 6.0  # standard deviations of the recent loss above its mean

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if self.action not in ("warn", "stop"):
            return f"guard.action: expected 'warn' or 'stop', found {self.action!r}"
        if not 0 <= self.entropy_low < self.entropy_high <= 1:
            return (
                f"guard: expected 0 <= entropy_low < entropy_high <= 1, "
                f"found {self.entropy_low} and {self.entropy_high}"
            )
        return None


@dataclass(frozen=True)
class InitSettings:
    """Where the first weights of a new run come from (tables 8, 10, 14 and 16)."""

    path: str | None = None  # run, checkpoint or export; None: drawn from the seed
    weights: str = "teacher"  # or "student"
    expert: int | None = (
        # with ``model.moe`` null: the expert of each mixture to keep; -1: a random one a block
        None
    )

    def problem(self) -> str | None:
        """One line saying what is impossible, or None."""
        if self.weights not in ("teacher", "student"):
            return f"init.weights: expected 'teacher' or 'student', found {self.weights!r}"
        if self.expert is not None and self.path is None:
            return "init.expert: expected init.path, whose experts are meant, found none"
        return None


@dataclass(frozen=True)
class Settings:
    """Everything of a run that is not DeepSpeed's."""

    seed: int = 0
    run_dir: str = "runs/pretrain"
    ep_size: int = 1  # expert-parallel ranks; divides experts and world size
    activation_checkpointing: bool = False
    recompute: str = (
        "blocks"  # what it computes again, see models/recompute.py: or "windows", "pointwise"
    )
    # torch.compile for feed-forward networks and fusion layers, see models/pretraining/compiled.py
    compile: bool = False
    layer_norm: str = "torch"  # or "apex": who computes it; weights and checkpoints are the same
    threads: int = 0  # CPU threads a rank for torch; 0: the library's choice
    log_every: int = 1  # steps
    collect_garbage_every: int = (
        50  # steps, the same on all ranks; 0: when Python chooses, each rank for itself
    )
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSpec = field(default_factory=ModelSpec)
    loss: LossSettings = field(default_factory=LossSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    init: InitSettings = field(default_factory=InitSettings)
    text: TextSettings = field(default_factory=TextSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
