"""What all ranks of a run must have in common before the first step."""

from typing import Any

import torch

from data.stream.mixture import Mixture
from engine.config.code import source_hashes, versions
from engine.config.flat import flat
from engine.config.load import Config
from engine.pretrained.sensors import sensor_facts
from models.kernels.dispatch import survey


def common_facts(
    config: Config,
    dataset: Mixture,
    device: torch.device,
    *,
    resume: str | None,
    stop_at: int | None,
) -> dict[str, Any]:
    """Name -> value of everything that decides what a rank computes and when it communicates.

    Args:
        config: Of ``engine.config.load.load``.
        dataset: Of ``engine.training.inputs.open_dataset``.
        device: This rank's.
        resume: As for ``engine.training.trainer.train``.
        stop_at: Likewise.

    Raises:
        ModelError: SKYSENSE_KERNELS is none of off, on, auto.
    """
    settings = config.settings
    return {
        **flat(config.complete()),
        "--resume": resume,
        "--stop_at": stop_at,
        "dataset": dataset.fingerprint,
        **flat(sensor_facts(settings.model.modalities), "sensor "),
        **flat(survey(device), "kernel "),
        **flat(versions(), "version of "),
        **flat(source_hashes(), "code "),
    }
