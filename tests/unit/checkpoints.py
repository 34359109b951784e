"""The teacher's part of a checkpoint, written from a whole model: what one rank of a run would
leave."""

import json
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from data.tiles.regions import RegionTable
from engine.checkpoint.files import stamp
from models.pretraining.model import Pretraining

PLACES = [(8.0, 52.0), (9.5, 52.0), (32.6, 0.3)]  # lon, lat of three regions


def write_checkpoint(
    folder: Path, model: Pretraining, step: int = 12, world_size: int = 1, ep_size: int = 1, **state
) -> Path:
    """A folder that ``engine.pretrained.source`` reads; ``state`` adds to state.json."""
    (folder / "ema").mkdir(parents=True)
    pieces, flat, place = [], [], 0
    for name, parameter in model.named_parameters():
        count = parameter.numel()
        pieces.append([name, list(parameter.shape), 0, count, place])
        flat.append(parameter.detach().flatten())
        place += count
    save_file(
        {"group.00000": torch.cat(flat)},
        folder / "ema/rank-00000.safetensors",
        {"layout": json.dumps([pieces])},
    )
    save_file(
        {f"student.{name}": buffer for name, buffer in model.named_buffers()},
        folder / "buffers.safetensors",
    )
    state = {
        "step": step,
        "world_size": world_size,
        "ep_size": ep_size,
        "model": asdict(model.spec),
        "regions": RegionTable.from_points(PLACES).to_json(),
        **state,
    }
    (folder / "state.json").write_text(json.dumps(state))
    files = {
        str(file.relative_to(folder)): stamp(file) for file in folder.rglob("*") if file.is_file()
    }
    (folder / "manifest.json").write_text(json.dumps({"format": 3, "files": files}))
    return folder
