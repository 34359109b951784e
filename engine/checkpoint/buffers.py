"""The buffers of student and teacher, such as prototypes, which all ranks have alike."""

from torch import Tensor, nn

BUFFERS = "buffers"  # the name of their file
STUDENT = "student"  # begins a name in it, with a dot and the module's own name behind
TEACHER = "teacher"


def buffers(student: nn.Module, teacher: nn.Module) -> dict[str, Tensor]:
    """The live buffers of both that are part of their ``state_dict``.

    One that the teacher shares with the student is the student's alone.
    """
    found = {f"{STUDENT}.{name}": buffer for name, buffer in _saved(student).items()}
    for name, buffer in _saved(teacher).items():
        shared = found.get(f"{STUDENT}.{name}")
        if shared is None or shared.data_ptr() != buffer.data_ptr():
            found[f"{TEACHER}.{name}"] = buffer
    return found


def _saved(module: nn.Module) -> dict[str, Tensor]:
    """A module's persistent buffers."""
    state = module.state_dict()
    return {name: buffer for name, buffer in module.named_buffers() if name in state}


def of_model(found: dict[str, Tensor], model: str) -> dict[str, Tensor]:
    """The buffers of one model among what ``buffers`` gave, by the module's own names.

    Args:
        found: Of a checkpoint.
        model: STUDENT or TEACHER.
    """
    own = {}
    for owner in (STUDENT, model):  # the teacher's own win over those that it shares
        for name, buffer in found.items():
            if name.startswith(f"{owner}."):
                own[name.removeprefix(f"{owner}.")] = buffer
    return own
