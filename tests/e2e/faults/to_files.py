"""Damage to what a run reads: files of its newest checkpoint, and shards."""

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

from tests.e2e.faults.chain import Chain
from tests.e2e.faults.to_processes import DIED, Kind

Damage = Callable[[Path, random.Random], None]


def flip_a_byte(file: Path, rng: random.Random) -> None:
    """As a disk or a network does."""
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 1 + rng.randrange(255)
    file.write_bytes(content)


def cut_short(file: Path, rng: random.Random) -> None:
    """As a file system does that was not forced to the disk."""
    os.truncate(file, rng.randrange(file.stat().st_size))


def delete(file: Path, rng: random.Random) -> None:
    """As a person does."""
    file.unlink()


def kind_of(file: Path) -> str:
    """The folder of a family's file, whatever its rank; the name of another."""
    if file.name.startswith("rank-"):
        return file.parent.name
    return file.name


def in_the_newest_checkpoint(damage: Damage) -> Kind:
    """The next start must say which file it is, and go back to the checkpoint before."""

    def kind(chain: Chain, rng: random.Random) -> None:
        run = chain.go(rng)
        run.wait_for(lambda: len(chain.published) >= 2)
        os.kill(rng.choice(run.ranks()), signal.SIGKILL)
        chain.ended(run, DIED)
        [before, newest] = chain.published[-2:]
        files = [path for path in newest.rglob("*") if path.is_file()]
        # Each kind of file is as likely as another: of several ranks there are more files.
        kinds = sorted({kind_of(path) for path in files})
        chosen = rng.choice(kinds)
        file = rng.choice([path for path in files if kind_of(path) == chosen])
        damage(file, rng)
        print(f"  {file.relative_to(newest)}", flush=True)
        chain.damaged(file, before)

    return kind


def lost_shard(chain: Chain, rng: random.Random) -> None:
    """A start without one of its shards ends before it has changed anything."""
    shard = rng.choice(sorted(chain.shards.glob("*.tar")))
    aside = shard.with_suffix(".lost")
    shard.rename(aside)
    chain.refused(chain.start(), shard.name, "no such file")
    aside.rename(shard)


def truncated_shard(chain: Chain, rng: random.Random) -> None:
    """A shard loses its end while a run reads it: the run saves what it has."""
    run = chain.go(rng)
    shard = rng.choice(sorted(chain.shards.glob("*.tar")))
    content = shard.read_bytes()
    os.truncate(shard, rng.randrange(len(content) // 2))
    chain.ended(run, "the data cannot be read; see the error above")
    assert shard.name in run.said
    shard.write_bytes(content)


KINDS = {
    "corrupt file in the newest checkpoint": in_the_newest_checkpoint(flip_a_byte),
    "truncated file in the newest checkpoint": in_the_newest_checkpoint(cut_short),
    "missing file in the newest checkpoint": in_the_newest_checkpoint(delete),
    "lost shard": lost_shard,
    "truncated shard": truncated_shard,
}
