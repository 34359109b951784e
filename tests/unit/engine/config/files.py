"""Configuration files for the tests."""

import json
from pathlib import Path
from typing import Any

from tests.paths import CONFIGS

DEMO = CONFIGS / "demo_cpu.json"


def written(folder: Path, content: Any, name: str = "run.json") -> Path:
    """A file in a folder with a text, or with anything else as JSON."""
    path = folder / name
    if not isinstance(content, str):
        content = json.dumps(content)
    path.write_text(content)
    return path
