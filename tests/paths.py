"""Where the checkout under test lies, and how long a test waits for a process."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "ds_configs"
# Those of learn/ need their dataset, which describes a sensor of its own.
SHIPPED = [path for path in sorted(CONFIGS.rglob("*.json")) if path.parent.name != "learn"]
SAMPLES = ROOT / "data" / "samples"
# Seconds after which a process counts as hanging. They measure no speed, as other work may fill the
# machine.
PATIENCE = 600
