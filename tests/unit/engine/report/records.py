"""Records of a run made by hand."""

import math

import numpy as np

STEPS = 12
K = 64  # prototypes
LEVELS = ("pixel", "object", "image")
HEADS = [f"{feature}/{level}" for feature in ("hr", "ms", "sar", "fused") for level in LEVELS]


def record(step: int, **changes) -> dict:
    """A healthy step's line; ``changes`` by name, slashes as double underscores."""
    loss = 4.0 - 0.1 * step
    line = {
        "step": step,
        "time": 0.0,
        "seconds": 2.0,
        "samples_per_second": 2.0,
        "data_wait": 0.01,
        "loss": 14 * loss,
        "applied": True,
        "gradient_norm": 10.0 / (step + 1),
        "lr": 1e-4,
        "weight_decay": 0.04,
        "momentum": 0.99,
        "teacher_temperature": 0.05,
        "loss/qsacl": loss,
        "loss/ita": loss,
        "loss/moe_balance": 3.0,
        "context/cosine": 0.8,
        "context/rank": 7.0,
        "context/spread": 0.2,
        "expert_load": np.full((3, 3, 8), 10 + step).tolist(),
    }
    for feature in ("hr", "ms", "sar", "fused"):
        line[f"teacher/{feature}/object/spread"] = 0.5
    line["teacher/ms/object/spread"] = 0.0  # small maps are one object
    for sensor in ("hr", "ms", "sar"):
        line[f"dropped/{sensor}/global"] = 0.05
        line[f"dropped/{sensor}/local"] = 0.08
    for head in HEADS:
        line[f"loss/mgcl/{head}"] = loss
    for head in [*HEADS, "queries"]:
        line[f"teacher/{head}/entropy"] = 0.6 * math.log(K)
        line[f"teacher/{head}/mean_entropy"] = 0.95 * math.log(K)
        line[f"teacher/{head}/used"] = 0.5
    for name, value in changes.items():
        line[name.replace("__", "/")] = value
    return line


def without_sar() -> dict:
    """What a step records whose batch has no SAR."""
    line = {}
    for level in LEVELS:
        line[f"loss/mgcl/sar/{level}"] = 0.0
        for kind in ("entropy", "mean_entropy", "used"):
            line[f"teacher/sar/{level}/{kind}"] = 0.0
    return line
