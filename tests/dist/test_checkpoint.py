"""Exact restart, and what a killed save, a damaged file, a full disk or other ranks do."""

import json
import os
import re
import resource
import shutil
import signal
from pathlib import Path

import google_crc32c
import pytest
import torch

from engine.checkpoint import state
from engine.checkpoint.files import newest
from engine.checkpoint.load import latest, load
from engine.distributed import zero, zero_state
from engine.distributed.collectives import on_first_rank
from engine.distributed.teacher import EmaTeacher
from engine.errors import RankError
from models.reducer import Reducer
from tests.dist import small
from tests.dist.processes import ProcessesFailed, run_processes
from tests.dist.small import Small, start, train_step

MODULE = "tests.dist.test_checkpoint"
CENTRES = {"fused": torch.arange(5.0)}


def open_run(ep_size=2, bf16=False, width=8):
    """Engine and teacher."""
    engine = start(ep_size, width, bf16=bf16)
    module = Small(ep_size, Reducer(), width).to(zero.compute_type(engine))
    return engine, EmaTeacher(engine, module)


def train(engine, teacher, steps):
    """Steps with the teacher behind them; its buffer is the caller's."""
    for step in steps:
        train_step(engine, step)
        teacher.update(0.9)
        teacher.module.centre.add_(engine.module.centre, alpha=0.5)


def publish(folder, step, engine, teacher, keep=2):
    """A checkpoint with values and tensors of the caller's."""
    extra = {"seed": 7, "fingerprint": "abc", "centres": CENTRES, "nothing": {}}
    small.publish(folder, step, engine, teacher, keep=keep, **extra)


def everything(engine, teacher):
    """All state of this rank by name: weights, buffers, master weights, moments, average, what the
    teacher shows."""
    tensors = {f"student.{name}": x for name, x in engine.module.state_dict().items()}
    tensors |= {f"teacher.{name}": x for name, x in teacher.module.state_dict().items()}
    shards_of = {"average": teacher.shards, "step": zero.moments(engine, "step")}
    for kind, shards in (shards_of | zero_state.shards(engine)).items():
        tensors |= {f"{kind}.{index}": shard for index, shard in enumerate(shards)}
    return {name: x.detach().clone() for name, x in tensors.items()}


def message(action):
    """The line of a ValueError."""
    try:
        action()
    except ValueError as error:
        return str(error)


def first_life(folder):
    """Train 3, save, train 3 more, in both precisions; then saves that clear away or fail."""
    zero.init_distributed()
    ends = {}
    for bf16 in (False, True):
        run = open_run(bf16=bf16)
        train(*run, range(3))
        publish(f"{folder}/{bf16}", 3, *run)
        train(*run, range(3, 6))
        ends[bf16] = everything(*run)
    return ends, tidy(Path(folder), run), full_disk(Path(folder), run)


def tidy(folder, run):
    """Which checkpoints stay: after a step saved twice, a later one, an earlier one."""
    listings = []
    for step in (2, 2, 3, 1):
        publish(folder / "tidy", step, *run, keep=1)
        # rank 0 clears a hidden folder when it starts the next save, so it also looks
        listings.append(on_first_rank(lambda: names_in(folder / "tidy/checkpoints")))
    return listings


def names_in(folder):
    """Names in a folder, sorted."""
    return sorted(path.name for path in folder.iterdir())


def full_disk(folder, run):
    """Rank 1 can write no more than 1 kB a file; then all can."""
    publish(folder / "full", 1, *run)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails instead
    if zero.ranks()[0] == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    line = message(lambda: publish(folder / "full", 2, *run))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    kept = names_in(folder / "full/checkpoints")
    publish(folder / "full", 3, *run)
    return line, kept, latest(folder / "full").name


def second_life(folder):
    """Start anew from the checkpoint and train 3; before that, everything that must be refused."""
    zero.init_distributed()
    good = latest(f"{folder}/False")
    refused = {"width": message(lambda: load(good, *open_run(width=12)))}
    run = open_run()
    train(*run, range(1))
    before = everything(*run)
    refused |= {name: message(lambda name=name: load(Path(folder) / name, *run)) for name in DAMAGE}
    after = everything(*run)
    refused["unchanged"] = str(all(torch.equal(x, after[name]) for name, x in before.items()))
    ends = {}
    states = {}
    for bf16 in (False, True):
        run = open_run(bf16=bf16)
        states[bf16] = load(latest(f"{folder}/{bf16}"), *run)
        train(*run, range(3, 6))
        ends[bf16] = everything(*run)
    return ends, states, refused


def truncate(folder):
    """Cut the last byte of one rank's file."""
    with open(folder / "ema/rank-00001.safetensors", "r+b") as file:
        file.truncate(os.fstat(file.fileno()).st_size - 1)


def flip(folder):
    """Change one bit in the middle."""
    path = folder / "ema/rank-00000.safetensors"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "truncated": (
        truncate,
        r"truncated/ema/rank-00001.safetensors: expected \d+ bytes .*, found \d+ bytes",
    ),
    "flipped": (
        flip,
        r"flipped/ema/rank-00000.safetensors: expected (\d+) bytes .*, found \1 bytes",
    ),
    "missing": (
        lambda folder: (folder / "exp_avg/rank-00001.safetensors").unlink(),
        r"missing/exp_avg/rank-00001.*: expected \d+ bytes .*, found no such file",
    ),
    "unpublished": (
        lambda folder: (folder / "manifest.json").unlink(),
        "unpublished: expected .*manifest.json",
    ),
}


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """Folder and results of the first life."""
    folder = tmp_path_factory.mktemp("checkpoint")
    return folder, run_processes(2, f"{MODULE}:first_life", [str(folder)])


@pytest.fixture(scope="module")
def second(first):
    """Results of the second life, with damaged copies beside the good checkpoint."""
    folder, _ = first
    for name, (damage, _) in DAMAGE.items():
        shutil.copytree(folder / "False/checkpoints/step-00000003", folder / name)
        damage(folder / name)
    return run_processes(2, f"{MODULE}:second_life", [str(folder)])


@pytest.mark.parametrize("bf16", [False, True])
def test_a_restart_changes_no_bit(first, second, bf16):
    for rank, (earlier, later) in enumerate(zip(first[1], second)):
        expected = earlier[0][bf16]
        found = later[0][bf16]
        values = later[1][bf16]
        assert expected.keys() == found.keys()
        assert "student.centre" in found
        assert "teacher.centre" in found
        for name, x in expected.items():
            assert torch.equal(x, found[name]), (rank, name)
        assert torch.equal(values.pop("centres")["fused"], CENTRES["fused"])
        assert values == {
            "step": 3,
            "world_size": 2,
            "ep_size": 2,
            "optimizer_steps": 3,
            "seed": 7,
            "fingerprint": "abc",
            "nothing": {},
        }


def test_refusals_are_one_line_on_all_ranks_before_anything_changes(second):
    lines = second[0][2]
    assert lines == second[1][2] and all("\n" not in line for line in lines.values())
    for name, (_, pattern) in DAMAGE.items():
        assert re.search(pattern, lines[name]), lines[name]
    assert lines["unchanged"] == "True"
    assert re.search(
        r"step-00000003: expected \S+ of shape \[.*12.*\], found \d+ elements of shape \[.*8.*\]",
        lines["width"],
    )


def test_the_manifest_names_every_file_with_size_and_checksum(first):
    path = first[0] / "False/checkpoints/step-00000003"
    files = json.loads((path / "manifest.json").read_text())["files"]
    assert set(files) == {
        str(file.relative_to(path)) for file in path.rglob("*") if file.is_file()
    } - {"manifest.json"}
    for name, entry in files.items():
        content = (path / name).read_bytes()
        assert entry == {"size": len(content), "crc32c": f"{google_crc32c.value(content):08x}"}


def test_old_checkpoints_go_after_the_new_one_is_there(first):
    for _, listings, _ in first[1]:
        steps = [[int(name.removeprefix("step-")) for name in names] for names in listings]
        # one stays; a step may be saved twice, and a run taken up at an earlier step leaves the
        # later ones
        assert steps == [[2], [2], [3], [1, 3]]


def test_a_full_disk_of_one_rank_fails_on_all_and_leaves_the_earlier_checkpoint(first):
    for _, _, (line, kept, after) in first[1]:
        place = r"rank 1: \S+/\.unfinished-step-00000002/\S+"
        assert re.match(place + r": cannot be written \(file too large\)", line)
        assert kept == ["step-00000001"]  # nothing of the new one is left
        assert after == "step-00000003"


def die(folder, point):
    """Save once, then be killed in the middle of the second save."""
    zero.init_distributed()
    run = open_run()
    train(*run, range(1))
    publish(folder, 1, *run)

    def kill(*arguments):
        os.kill(os.getpid(), signal.SIGKILL)

    if point == "manifest":
        Path.rename = kill
    if point == "files" and zero.ranks()[0] == 1:
        write = state.write_shards
        calls = iter([write, kill])  # the first family is written, the second is not
        state.write_shards = lambda *arguments: next(calls)(*arguments)
    publish(folder, 2, *run)


@pytest.mark.parametrize("point", ["files", "manifest"])
def test_a_killed_save_leaves_the_earlier_checkpoint(tmp_path, capsys, point):
    with pytest.raises(ProcessesFailed):
        run_processes(2, f"{MODULE}:die", [str(tmp_path), point])
    root = tmp_path / "checkpoints"
    assert (root / ".unfinished-step-00000002/master/rank-00001.safetensors").exists()
    assert (root / ".unfinished-step-00000002/manifest.json").exists() == (point == "manifest")
    shutil.copytree(root / "step-00000001", root / "step-00000009")
    (root / "step-00000009/manifest.json").unlink()
    assert latest(tmp_path) == root / "step-00000001"
    said = capsys.readouterr().out
    assert "step-00000009: not a complete checkpoint" in said
    assert ".unfinished-step-00000002: not a complete" in said


def test_a_run_without_checkpoints_has_none(tmp_path):
    assert latest(tmp_path / "nothing") is None


def test_the_newest_sound_checkpoint_is_taken(first, tmp_path, capsys):
    """The newest has no manifest to speak of, and the one before it a wrong bit."""
    root = tmp_path / "checkpoints"
    sound, flipped, empty = (root / f"step-0000000{step}" for step in (3, 4, 5))
    for folder in (sound, flipped, empty):
        shutil.copytree(first[0] / "False/checkpoints/step-00000003", folder)
    flip(flipped)
    (empty / "manifest.json").write_text("")
    assert latest(tmp_path) == sound
    warnings = capsys.readouterr().out.splitlines()
    assert len(warnings) == 2
    assert warnings[0].startswith(f"warning: {empty}/manifest.json: expected JSON")
    assert warnings[1].startswith(f"warning: {flipped}/ema/rank-00000.safetensors: expected ")
    assert newest(tmp_path) == flipped  # who only asks for a name reads only manifests
    shutil.rmtree(sound)
    with pytest.raises(RankError, match=f"{flipped}/ema/rank-00000.safetensors: expected "):
        latest(tmp_path)
