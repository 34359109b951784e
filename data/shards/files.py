"""Names of the files of a sharded dataset, and of the members in its tars."""

from collections.abc import Container

MANIFEST = "manifest.json"
HR_SUFFIXES = {"jpeg": "jpg", "png": "png"}  # codec of the high-resolution image -> suffix


def tar_name(shard: str) -> str:
    """The tar of a shard."""
    return f"{shard}.tar"


def index_name(shard: str) -> str:
    """The index beside a shard's tar."""
    return f"{shard}.index.jsonl"


def hr_field(level: int) -> str:
    """Member that holds the high-resolution image at 1 / 2^level of its size."""
    if level == 0:
        return "hr"
    return f"hr_{1 << level}"


def hr_levels(members: Container[str]) -> int:
    """How many levels of the high-resolution image are among a sample's members."""
    levels = 0
    while hr_field(levels) in members:
        levels += 1
    return levels
