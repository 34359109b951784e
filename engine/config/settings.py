"""The typed ``skysense`` object of a configuration file.

Batch size, precision and optimizer are DeepSpeed's keys and stand elsewhere in the file.
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from data.stream.settings import DataSettings
from models.spec import ModelSpec

# Types with a range. ``engine/config/typed.py`` checks them when a file is read.
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
AtLeastTwo = Annotated[int, Field(ge=2)]
Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]  # of a moving average


@dataclass(frozen=True)
class LossSettings:
    """Weights of the loss terms (supplement, section C) and the settings of the DINO loss."""

    mgcl: float = 1.0
    qsacl: float = 1.0
    ita: float = 1.0
    moe_balance: float = 0.01
    koleo: float = 0.0  # off by default
    student_temperature: Positive = 0.1
    teacher_temperature: Positive = 0.07
    teacher_temperature_start: Positive = 0.04
    teacher_temperature_warmup: Count = 30_000  # steps
    centring: Literal["sinkhorn", "mean"] = "sinkhorn"  # "mean": of the teacher's logits, running
    centre_momentum: Share = 0.9
    sinkhorn_iterations: AtLeastOne = 3
    # A contrastive term with fewer rows in the global batch has a smaller weight, in proportion.
    full_weight_rows: AtLeastOne = 128
    clusters: AtLeastTwo = 16  # object level, N_C
    cluster_epsilon: Positive = 0.05
    freeze_last_layer: Count = 1250  # steps
    text_temperature: Positive = 0.07


@dataclass(frozen=True)
class ScheduleSettings:
    """Functions of the step (supplement, section C).

    The peak learning rate and the first weight decay are the optimizer's.
    """

    steps: AtLeastOne = 600_000
    warmup: int = 10_000
    final_lr: float = 1e-6
    final_weight_decay: float = 0.2
    ema_start: Share = 0.996
    ema_end: Share = 1.0

    def problem(self) -> str | None:
        """One line that says what is impossible, or None."""
        if not 0 <= self.warmup < self.steps:
            return (
                f"schedule.warmup: expected 0 <= warmup < steps ({self.steps}), found {self.warmup}"
            )
        return None


@dataclass(frozen=True)
class TextSettings:
    """The text tower of the dense image-text alignment."""

    architecture: str = "ViT-H-14"  # an open_clip model name
    weights: str | None = None  # path to open_clip weights
    random: bool = False  # without weights: a random tower, for demonstrations and tests


@dataclass(frozen=True)
class CheckpointSettings:
    """When to save and how many checkpoints to keep."""

    every: AtLeastOne = 5000  # steps
    minutes: Annotated[float, Field(ge=0)] = 20  # and at least that often; 0: by steps alone
    keep: AtLeastOne = 3  # the newest
    keep_every: Count = 0  # steps; the first checkpoint from each multiple on stays for ever


@dataclass(frozen=True)
class GuardSettings:
    """When a run counts as failing, and what happens then."""

    # "stop": save and end the run. "rollback": go back to the last healthy checkpoint.
    action: Literal["warn", "stop", "rollback"] = "warn"
    rollbacks: AtLeastOne = 3  # in a run; the next one would end it
    # Steps in a row that count as a collapse, as hopeless skipping, or as a loss that stays high.
    patience: AtLeastOne = 50
    entropy_low: float = 0.01  # share of log K: below it every image falls on one prototype
    entropy_high: float = 0.995  # share of log K: above it the teacher says nothing
    spike: Positive = 6.0  # standard deviations of the recent loss above its mean
    dropped: Share = 0.2  # of a sensor's tokens in views of a size: more is a loss to report

    def problem(self) -> str | None:
        """One line that says what is impossible, or None."""
        if not 0 <= self.entropy_low < self.entropy_high <= 1:
            return (
                f"guard: expected 0 <= entropy_low < entropy_high <= 1, "
                f"found {self.entropy_low} and {self.entropy_high}"
            )
        return None


@dataclass(frozen=True)
class WatchdogSettings:
    """When a rank counts as hanging or lost, which ends the run."""

    steps: Annotated[float, Field(ge=0)] = 20.0  # usual steps that a part of one may take; 0: any
    least: Positive = 120.0  # seconds that it may take in any case
    other: Positive = 1800.0  # seconds for the start, waiting for data, saving and evaluating
    silence: Positive = 60.0  # seconds without a heartbeat


@dataclass(frozen=True)
class EvaluateSettings:
    """Held-out tiles that the teacher's features are probed on during training."""

    every: Count = 0  # steps; 0: never
    shards: str = ""  # folder or URL
    labels: str = ""  # CSV file of key,label[,split][,group]; "": the labels of the shards
    samples: AtLeastTwo = 512  # tiles at most, evenly spaced

    def problem(self) -> str | None:
        """One line that says what is impossible, or None."""
        if self.every and not self.shards:
            return "evaluate.shards: expected held-out shards for evaluate.every, found none"
        return None


@dataclass(frozen=True)
class InitSettings:
    """Where the first weights of a new run come from (tables 8, 10, 14 and 16)."""

    path: str | None = None  # run, checkpoint or export; None: drawn from the seed
    weights: Literal["teacher", "student"] = "teacher"
    # With ``model.moe`` null: the expert that each MoE block keeps; -1: a random one a block.
    expert: int | None = None

    def problem(self) -> str | None:
        """One line that says what is impossible, or None."""
        if self.expert is not None and self.path is None:
            return "init.expert: expected init.path, whose experts are meant, found none"
        return None


@dataclass(frozen=True)
class Settings:
    """Everything of a run that is not DeepSpeed's."""

    description: str = ""  # what the file is for; a file does not inherit it from its base
    seed: Count = 0
    run_dir: str = "runs/pretrain"
    ep_size: AtLeastOne = 1  # expert-parallel ranks; divides experts and world size
    # What the backward pass computes again instead of keeping it, see models/recompute.py.
    recompute: Literal["none", "blocks", "windows", "pointwise"] = "none"
    # torch.compile for feed-forward networks and fusion layers, see models/pretraining/compiled.py.
    compile: bool = False
    layer_norm: Literal["torch", "apex"] = "torch"  # weights and checkpoints are the same
    needs_gpu: bool = False  # refuse to train where torch sees no GPU
    threads: Count = 0  # CPU threads of a rank for torch; 0: the library's choice
    log_every: AtLeastOne = 1  # steps
    # Steps, the same on all ranks; 0: Python chooses, and each rank for itself.
    collect_garbage_every: Count = 50
    # Steps between two comparisons of what all ranks must have alike; 0: never.
    compare_ranks_every: Count = 20
    data: DataSettings = field(default_factory=DataSettings)
    model: ModelSpec = field(default_factory=ModelSpec)
    loss: LossSettings = field(default_factory=LossSettings)
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    init: InitSettings = field(default_factory=InitSettings)
    text: TextSettings = field(default_factory=TextSettings)
    checkpoint: CheckpointSettings = field(default_factory=CheckpointSettings)
    guard: GuardSettings = field(default_factory=GuardSettings)
    watchdog: WatchdogSettings = field(default_factory=WatchdogSettings)
    evaluate: EvaluateSettings = field(default_factory=EvaluateSettings)


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW: DeepSpeed's ``optimizer.params``."""

    lr: Positive  # the peak of the schedule
    weight_decay: Annotated[float, Field(ge=0)]  # the first value of the schedule
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    eps: float = 1e-8
    torch_adam: bool = False  # torch's AdamW instead of DeepSpeed's FusedAdam
    fused: bool = False  # of torch's AdamW: one kernel
