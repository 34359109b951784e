"""Two whole steps of a run on tensors without values, as one of its ranks would make them."""

import gc
from dataclasses import dataclass

import torch

from data.stream.collate import empty_batch
from data.stream.sample import Batch
from data.tiles.classes import NAMES
from engine.config.load import Config
from engine.distributed import zero
from engine.distributed.collectives import DistributedReducer
from engine.distributed.fake_world import DEVICE, fake_world
from engine.distributed.teacher import EmaTeacher
from engine.planning.attention import gpu_attention
from engine.planning.kernels import planned_kernels
from engine.planning.recorder import Allocation, Begin, Collective, Kind, Recorder, Release, Work
from engine.training.assemble import start_engine
from engine.training.models import build_pair
from engine.training.objective import Objective
from engine.training.schedules import Schedules
from engine.training.step import Step
from models.kernels.gpu import Gpu
from models.moe.names import expert_parameters

READY = "ready"  # the part between the set-up and the first step
MASTER = "master weights"
MOMENTS = "moments"
AVERAGE = "teacher's average"
SAVED = (MASTER, MOMENTS, AVERAGE)  # copied to the host for a checkpoint
MATCHED = 0.5  # of the cells of a student's view, those that a teacher's view shows too
STEPS = 2  # the first one makes the optimizer's moments


@dataclass(frozen=True)
class Rehearsal:
    """What one rank did."""

    events: list[Allocation | Release | Begin]  # of the set-up and both steps
    items: dict[int, str]  # storage -> what it holds, of those that outlive a step
    collectives: list[Collective]  # of the last step
    work: dict[Kind, Work]  # of the last step


def rehearse(config: Config, world_size: int, gpu: Gpu) -> Rehearsal:
    """Make two steps as rank 0 of ``world_size`` ranks. A process can do it once.

    Every sample has all sensors, frames and labels.

    Args:
        config: Of ``engine.config.load.load``, checked against the world size.
        world_size: Number of ranks.
        gpu: What the ranks compute on.
    """
    recorder = Recorder(matched=MATCHED)
    with fake_world(world_size, recorder.change_stream):
        reducer = DistributedReducer()
        with DEVICE:
            pair = build_pair(config.settings, reducer, empty=True)
        with gpu_attention(), planned_kernels(gpu, recorder), recorder:
            ema = start_engine(config, pair, DEVICE)
            recorder.drop(zero.shape_tensors(ema.engine))
            objective = Objective(
                config.settings.loss,
                student=ema.engine.module,
                teacher=pair.teacher,
                text=torch.empty(len(NAMES), config.settings.model.text_width, device=DEVICE),
                reducer=reducer,
            )
            step = Step(
                engine=ema.engine,
                ema=ema,
                objective=objective,
                schedules=Schedules(config.settings, config.optimizer),
                reducer=reducer,
                device=DEVICE,
                seed=config.settings.seed,
            )
            _name_items(recorder, ema, objective)
            gc.collect()
            recorder.begin(READY)
            for number in range(STEPS):
                recorder.collectives.clear()
                recorder.work.clear()
                step(full_batch(number, config.batch_size // world_size, config))
                recorder.begin(READY)
            _name_moments(recorder, ema.engine)
        return Rehearsal(
            events=recorder.events,
            items=recorder.items,
            collectives=recorder.collectives,
            work=dict(recorder.work),
        )


def full_batch(step: int, size: int, config: Config) -> Batch:
    """A batch in which every pixel is valid and labelled."""
    batch = empty_batch(step, size, config.settings.data)
    for views in batch.views.values():
        for mask in views.valid.values():
            mask.fill_(True)
        for mask in views.seen.values():
            mask.fill_(True)
        views.labels.zero_()
    return batch


def _name_items(recorder: Recorder, ema: EmaTeacher, objective: Objective) -> None:
    """Say what is held from the set-up on."""
    student = ema.engine.module
    teacher = ema.module
    for owner, model in (("student", student), ("teacher", teacher)):
        recorder.hold(f"weights of the {owner}", model.parameters())
        experts = (parameter for _, parameter in expert_parameters(model))
        recorder.hold(f"weights of the {owner}, experts", experts)
    recorder.hold("prototypes of regions, buffers", [*student.buffers(), *teacher.buffers()])
    recorder.hold(MASTER, zero.partitions(ema.engine))
    recorder.hold(AVERAGE, ema.shards)
    recorder.hold("class embeddings", [objective.text])


def _name_moments(recorder: Recorder, engine: zero.DeepSpeedEngine) -> None:
    for name in ("exp_avg", "exp_avg_sq"):
        recorder.hold(MOMENTS, zero.moments(engine, name))
