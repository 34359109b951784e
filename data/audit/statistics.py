"""Measured means and deviations as a sensors file, for ``skysense.data.sensors`` of a run."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from data.audit.measure.pixels import Pixels
from data.files import write_whole
from data.tiles.definitions import Definition
from data.tiles.modalities import MODALITIES


def write_statistics(path: Path, pixels: Pixels) -> list[str]:
    """Write the sensors that have pixels, each with what was measured.

    Args:
        path: the file.
        pixels: measurements of a dataset's pixels.

    Returns:
        A line for each sensor: what was measured, or why it is left out.
    """
    sensors = []
    lines = []
    for name, moments in pixels.moments.items():
        sensor = MODALITIES[name]
        constant = [band for band, std in zip(sensor.bands, moments.std) if not std]
        if not moments.count:
            lines.append(f"{name}: left out, has no valid pixel")
        elif constant:
            lines.append(f"{name}: left out, all pixels of {', '.join(constant)} are equal")
        else:
            mean = _numbers(moments.mean / sensor.scale)
            std = _numbers(moments.std / sensor.scale)
            sensors.append(Definition.of(replace(sensor, mean=mean, std=std)).to_json())
            lines.append(f"{name}: mean and std of {moments.count:,} valid pixels")
    write_whole(path, json.dumps({"sensors": sensors}, indent=1) + "\n")
    return lines


def _numbers(values: np.ndarray) -> tuple[float, ...]:
    """Numbers with nine digits: more than float32 has, in which they are used."""
    return tuple(float(f"{value:.9g}") for value in values)
