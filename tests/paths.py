"""Where the checkout under test lies."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CONFIGS = ROOT / "ds_configs"
SAMPLES = ROOT / "data" / "samples"
