"""What writers and readers of shards share: names of files and members, checksums."""

import json

from data.hashing import content_hash

FORMAT = "skysense-shards"
VERSION = 2
MANIFEST = "manifest.json"
HR_SUFFIXES = {"jpeg": "jpg", "png": "png"}  # high-resolution codec -> name of the member


def tar_name(shard: str) -> str:
    """The tar of a shard; also of a shard's record in the manifest."""
    return f"{shard}.tar"


def index_name(shard: str) -> str:
    """The sidecar index beside a shard's tar."""
    return f"{shard}.index.jsonl"


def hr_field(level: int) -> str:
    """Member that holds the high-resolution image at 1 / 2^level of its size."""
    return f"hr_{1 << level}" if level else "hr"


def hr_levels(members: dict) -> int:
    """How many levels of the high-resolution image a sample's index entry has."""
    levels = 0
    while hr_field(levels) in members:
        levels += 1
    return levels


def manifest_hash(manifest: dict) -> str:
    """Hash over everything in a manifest but its own ``hash``."""
    rest = {name: value for name, value in manifest.items() if name != "hash"}
    return content_hash(json.dumps(rest, sort_keys=True).encode())
