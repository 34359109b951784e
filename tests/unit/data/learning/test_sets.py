"""The small labelled sets, from files in their layout to a manifest that ``prepare`` takes."""

import csv
import json

import numpy as np
import pytest
import zarr
from PIL import Image

from data.errors import InputError
from data.learning import bigearthnet, ucmerced
from data.prepare.run import prepare
from data.tiles.classes import INDEX

MIXED = 313
SEA = 523


def write_patch(root, row, codes, rng):
    """A patch with the row of the data set's table in its name."""
    s2 = rng.integers(1, 4000, (4, 120, 120)).astype(np.uint16)
    s1 = rng.normal(-12, 3, (2, 120, 120)).astype(np.float32)
    s1[1] -= 7
    np.savez(root / f"patch_{row:06d}.npz", s1=s1, s2=s2, clc=codes.astype(np.int16))
    return s1, s2


def read_rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_windows_have_the_class_of_nine_tenths_of_their_pixels():
    codes = np.full((24, 24), 211)
    assert bigearthnet.label_of(codes) == "arable land"
    codes.flat[:57] = MIXED  # 9.9 %
    assert bigearthnet.label_of(codes) == "arable land"
    codes.flat[:58] = MIXED  # 10.1 %
    assert bigearthnet.label_of(codes) is None
    codes.flat[:300] = 212  # two codes of one class
    assert bigearthnet.label_of(codes) == "arable land"
    assert bigearthnet.label_of(np.full((24, 24), 999)) is None


def test_every_code_of_corine_has_one_class():
    level_3 = [111, 112, 121, 131, 142, 211, 213, 221, 231, 241, 244, 311, 312, 313, 321, 324, 331]
    level_3 += [335, 411, 423, 511, 512, 521, 523]
    bare = {331, 335}  # sand and glaciers do not occur in the set
    for code in level_3:
        assert (bigearthnet.class_of(code) is None) == (code in bare)


def test_bigearthnet_becomes_tiles(tmp_path):
    rng = np.random.default_rng(0)
    root = tmp_path / "ben"
    root.mkdir()
    codes = np.full((120, 120), MIXED)
    codes[:, 24:48] = SEA
    s1, s2 = write_patch(root, 231, codes, rng)
    write_patch(root, 130_000, codes, rng)  # of the fourth block: for the test
    out = tmp_path / "out"
    bigearthnet.write(root, out)

    records = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert len(records) == 50
    assert {record["key"][:12]: record["split"] for record in records} == {
        "patch_000231": "train",
        "patch_130000": "test",
    }
    labels = {row["key"]: row for row in read_rows(out / "labels.csv")}
    assert labels["patch_000231-r3-c1"]["label"] == "water"
    assert labels["patch_000231-r3-c2"]["label"] == "mixed forest"
    assert labels["patch_130000-r0-c0"]["group"] == "patch_130000"
    assert labels["patch_130000-r0-c0"]["split"] == "test"

    (sensor,) = json.loads((out / "sensors.json").read_text())["sensors"]
    np.testing.assert_allclose(sensor["mean"], s2.mean((1, 2)), atol=0.001)
    np.testing.assert_allclose(sensor["std"], s2.std((1, 2)), atol=0.001)

    archive = tmp_path / "archive"
    sensors = out / "sensors.json"
    prepare(out / "manifest.jsonl", archive, sensors=sensors, workers=0, say=str)
    tile = zarr.open_group(archive / "tiles" / "patch_000231-r3-c1", mode="r")
    area = (..., slice(72, 96), slice(24, 48))
    np.testing.assert_array_equal(tile["s2_10m"][0], s2[area])
    np.testing.assert_allclose(tile["sar"][0], s1[area], atol=0.01)
    assert np.unique(tile["labels"][:]).tolist() == [INDEX["water"]]


def test_ucmerced_becomes_tiles(tmp_path):
    rng = np.random.default_rng(1)
    root = tmp_path / "ucm"
    root.mkdir()
    rows = ["file,class,number,split,overlap_group"]
    parts = {"00": "train", "69": "train", "70": "validation", "71": "train", "81": "test"}
    groups = {"69": "a", "71": "a"}
    for number, part in parts.items():
        pixels = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / f"river{number}.webp", lossless=True)
        named = "test" if part == "test" else "train"
        group = groups.get(number, "")
        rows.append(f"river{number}.webp,river,{int(number)},{named},{group}")
    (root / "labels.csv").write_text("\n".join(rows) + "\n")
    out = tmp_path / "out"
    ucmerced.write(root, out)
    table = read_rows(out / "labels.csv")
    assert {row["key"]: row["split"] for row in table} == {
        f"river{number}": part for number, part in parts.items() if number != "69"
    }
    assert [row["group"] for row in table] == ["river00", "river70", "a", "river81"]
    archive = tmp_path / "archive"
    prepare(out / "manifest.jsonl", archive, workers=0, say=str)
    tile = zarr.open_group(archive / "tiles" / "river81", mode="r")
    np.testing.assert_array_equal(tile["hr"][:], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize("write", [bigearthnet.write, ucmerced.write])
def test_an_empty_folder_is_refused(tmp_path, write):
    with pytest.raises(InputError, match="check the folder"):
        write(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
