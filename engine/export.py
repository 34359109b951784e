"""The teacher as plain safetensors inside a checkpoint, readable without DeepSpeed or processes.

``common.safetensors`` holds what every rank has; ``experts-<i>.safetensors`` the experts of expert-parallel rank
``i`` under their global names, so that what is read depends neither on the world size nor on ``ep_size``.
"""

import json
from dataclasses import asdict
from pathlib import Path

from safetensors.torch import load_file, save_file

from engine.typed import parse
from models.moe import canonical_names, expert_parameters
from models.pretraining import Pretraining
from models.spec import ModelSpec


def write_teacher(folder: Path, teacher: Pretraining, rank: int, ep_size: int) -> None:
    """Write this rank's part of the teacher in its compute type: the first ``ep_size`` ranks hold every expert once."""
    if rank >= ep_size:
        return
    folder.mkdir(parents=True, exist_ok=True)
    names = canonical_names(teacher)
    local = {name for name, _ in expert_parameters(teacher)}
    common, experts = {}, {}
    for name, tensor in teacher.state_dict().items():
        part = experts if name in local else common
        part[names.get(name, name)] = tensor.detach().cpu().contiguous()
    if experts:
        save_file(experts, folder / f"experts-{rank:05d}.safetensors")
    if rank == 0:
        save_file(common, folder / "common.safetensors")
        (folder / "spec.json").write_text(json.dumps(asdict(teacher.spec), indent=2) + "\n")


def load_teacher(folder: Path) -> Pretraining:
    """The whole teacher in one process, in eval mode, from a folder that ``write_teacher`` filled.

    Raises ValueError if files or weights are missing.
    """
    spec_file = folder / "spec.json"
    if not spec_file.is_file():
        raise ValueError(f"{folder}: expected a teacher (spec.json and safetensors), found none; "
                         "give the folder 'teacher' of a checkpoint")
    model = Pretraining(parse(ModelSpec, json.loads(spec_file.read_text()), "model"))
    state = {}
    for file in sorted(folder.glob("*.safetensors")):
        state.update(load_file(file))
    missing, unexpected = model.load_state_dict(state, strict=False)
    if missing or unexpected:
        raise ValueError(f"{folder}: {len(missing)} weights are missing and {len(unexpected)} unknown, "
                         f"first {(missing + unexpected)[0]!r}; the folder is incomplete or of another version")
    return model.eval().requires_grad_(False)
