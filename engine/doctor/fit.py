"""Whether a run fits the memory of this machine, by plan."""

from dataclasses import replace

import torch

from engine.doctor.fact import Fact, active, missing
from engine.doctor.machine import GIB, available_memory, has_gpu
from engine.planning.cards import CARDS, Card
from engine.planning.making import plan
from engine.planning.plan import Plan, Setting
from models.kernels.gpu import Gpu

ADVICE = "skysense plan --advise names what needs less; or take more ranks or a smaller batch"
PROGRAM = 0.8 * GIB  # of a process before it has a model: torch, DeepSpeed, threads


def fit(setting: Setting, *, local_ranks: int) -> list[Fact]:
    """Compare what the ranks here need with what there is.

    Args:
        setting: Of the run; its card does not count.
        local_ranks: Ranks on this machine.
    """
    if not has_gpu():
        planned = plan(setting)
        return [_on_host(planned.memory.reserved + planned.memory.saved, ranks=local_ranks)]
    planned = plan(replace(setting, card=card_here()))
    return [_on_gpu(planned), _on_host(planned.memory.saved, ranks=local_ranks)]


def card_here() -> Card:
    """The first GPU of this machine. Only its memory and its size are its own."""
    device = torch.cuda.get_device_properties(0)
    chip = Gpu(processors=device.multi_processor_count, capability=device.major)
    return replace(CARDS["h100"], name=device.name, memory=device.total_memory, chip=chip)


def _on_gpu(planned: Plan) -> Fact:
    reason = (
        f"a rank reserves {planned.memory.reserved / GIB:.1f} GiB by plan, the GPU has "
        f"{planned.card.memory / GIB:.1f} GiB"
    )
    if planned.fits:
        return active("memory of a GPU", reason)
    return missing("memory of a GPU", f"{reason}, of which a tenth must stay free", ADVICE)


def _on_host(size: int, *, ranks: int) -> Fact:
    """Memory of the processes, of which each holds ``size`` bytes beside the program."""
    need = ranks * (size + PROGRAM)
    available = available_memory()
    reason = (
        f"about {need / GIB:.1f} GiB by plan for the ranks here ({ranks}), "
        f"{available / GIB:.1f} GiB available"
    )
    if need <= available:
        return active("memory of the ranks", reason)
    return missing("memory of the ranks", reason, ADVICE)
