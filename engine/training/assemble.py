"""Every object of a run, put together in one place: for training, profiling and tests."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from data.stream.batches import Stream, open_stream
from data.stream.mixture import Mixture
from engine.config.load import Config
from engine.config.settings import Settings
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer, is_first_rank, together
from engine.distributed.teacher import EmaTeacher
from engine.training.first_weights import take_trained
from engine.training.inputs import embed_classes
from engine.training.models import (
    Pair,
    build_pair,
    describe,
    is_last_layer,
    is_no_decay,
    share_context,
)
from engine.training.objective import Objective
from engine.training.rows import few_rows
from engine.training.schedules import Schedules
from engine.training.step import Step


@dataclass
class Run:
    """The objects of a run on this rank."""

    config: Config
    dataset: Mixture
    reducer: DistributedReducer
    step: Step
    start: int = 0  # first step to make
    samples: int = 0  # that the steps before it took
    parent: Path | None = None  # the last checkpoint before the steps to come
    guard: dict | None = None  # what the guard remembers of the steps before
    rollbacks: int = 0  # made before

    @property
    def settings(self) -> Settings:
        """The run's typed settings."""
        return self.config.settings

    @property
    def run_dir(self) -> Path:
        """The run's folder."""
        return Path(self.settings.run_dir)

    @property
    def rank(self) -> int:
        """This process among all of the run."""
        return zero.ranks().rank

    def samples_before(self, step: int) -> int:
        """Samples that the steps before ``step`` took, which is the run's place in its data."""
        return self.samples + (step - self.start) * self.config.batch_size

    def batches(self, stop: int) -> Stream:
        """This rank's batches of the steps from ``start`` to before ``stop``."""
        return open_stream(
            self.dataset,
            self.settings.data,
            seed=self.settings.seed,
            batch_size=self.config.batch_size,
            steps=range(self.start, stop),
            samples=self.samples,
            rank=self.rank,
            world_size=self.reducer.world_size,
        )


def assemble(
    config: Config, dataset: Mixture, device: torch.device, *, resumes: bool = False
) -> Run:
    """Build models, engine, teacher, objective and schedules of a run. Every rank must call it.

    Nothing is written. Rank 0 says on the standard output what was built.

    Args:
        config: Of ``engine.config.load.load``, checked against the world size.
        dataset: Of ``engine.training.inputs.open_dataset``.
        device: This rank's, of ``zero.init_distributed``.
        resumes: A checkpoint will be loaded, so ``skysense.init`` is left out.

    Raises:
        RankError: Something that the settings ask for is not there; raised on all ranks.
    """
    settings = config.settings
    reducer = DistributedReducer()
    classes = together(lambda: embed_classes(settings, dataset))
    pair = together(lambda: build_pair(settings, reducer))
    lines = describe(pair.student)
    if not resumes:
        lines += together(lambda: take_trained(settings, pair.student, dataset.regions))
    lines += few_rows(settings, config.batch_size)
    lines.append(f"class embeddings: {classes.description}")
    reduction = config.deepspeed["communication_data_type"]
    lines.append(f"gradients: summed over ranks in {reduction or 'the type of the weights'}")
    lines.append(f"data: {len(dataset)} samples of {dataset.path}, run folder {settings.run_dir}")
    _print_on_first_rank(lines)

    ema = start_engine(config, pair, device)
    objective = Objective(
        settings.loss,
        student=ema.engine.module,
        teacher=pair.teacher,
        text=classes.vectors.to(device),
        reducer=reducer,
    )
    step = Step(
        engine=ema.engine,
        ema=ema,
        objective=objective,
        schedules=Schedules(settings, config.optimizer),
        reducer=reducer,
        device=device,
        seed=settings.seed,
        compare_ranks_every=settings.compare_ranks_every,
    )
    return Run(config, dataset, reducer, step)


def start_engine(config: Config, pair: Pair, device: torch.device) -> EmaTeacher:
    """Put the student into a DeepSpeed engine and the teacher beside it.

    Args:
        config: The run's configuration.
        pair: Student and teacher on the CPU. Both are moved and cast, and the teacher reads the
            student's geo-context prototypes from now on.
        device: This rank's.

    Returns:
        The teacher's average, with the engine in it.
    """
    groups = zero.parameter_groups(
        pair.student,
        weight_decay=config.optimizer.weight_decay,
        is_no_decay=partial(is_no_decay, spec=config.settings.model),
        is_last_layer=is_last_layer,
    )
    engine = zero.initialize(pair.student, config.deepspeed, groups)
    zero.join_expert_groups(pair.teacher)
    teacher = pair.teacher.to(device, zero.compute_type(engine))
    share_context(engine.module, teacher)
    return EmaTeacher(engine, teacher)


def _print_on_first_rank(lines: Iterable[str]) -> None:
    if is_first_rank():
        print("\n".join(lines), flush=True)
