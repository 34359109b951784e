"""Pairs of samples against all pairs compared one by one, and pictures against pictures that
changed a little."""

import io
import tracemalloc
from itertools import combinations

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from data.audit.measure.fingerprint import content_hash, hamming_distance, picture_hash
from data.audit.rules.duplicates import (
    DEGREE,
    NO_HASH,
    SAMPLE_ROW,
    equal_values,
    near,
    overlapping,
    same_picture,
)
from data.audit.rules.spilled import SpilledRows
from data.shards.records import Member
from data.tiles.regions import great_circle_km


def rows_of(count, **columns) -> SpilledRows:
    """Rows of samples, numbered from 0; what is not given is 0, or no picture hash."""
    table = np.zeros(count, SAMPLE_ROW)
    table["sample"] = np.arange(count)
    table["hr_hash"] = table["ms_hash"] = NO_HASH
    for name, values in columns.items():
        table[name] = values
    rows = SpilledRows(SAMPLE_ROW)
    for row in table:
        rows.append(row.tobytes())
    return rows


@pytest.mark.parametrize("middle", [8, 180, -179.9999])
@pytest.mark.parametrize("lat, reach", [(0, 10), (50, 400), (-75, 400), (84, 1000)])
def test_near_pairs_are_all_pairs(lat, reach, middle):
    rng = np.random.default_rng(lat + 100)
    side = 6 * reach / DEGREE
    lat = lat + rng.uniform(-side, side, 150)
    lon = middle + rng.uniform(-side, side, 150) / np.cos(np.radians(lat))
    lon = (lon + 180) % 360 - 180
    pairs = []
    for block in near(lon, lat, reach):
        pairs += zip(block.first.tolist(), block.second.tolist())
    assert len(pairs) == len(set(pairs))  # each once
    expected = set()
    for i, j in combinations(range(150), 2):
        middle = (lat[i] + lat[j]) / 2
        across = 1000 * great_circle_km((lon[i], middle), (lon[j], middle))
        if across <= reach and abs(lat[i] - lat[j]) * DEGREE <= reach:
            expected.add((i, j))
    assert len(expected) > 100
    for i, j in set(pairs) ^ expected:  # they differ only in pairs that lie on the limit
        shrink = np.cos(np.radians((lat[i] + lat[j]) / 2))
        turned = (lon[i] - lon[j] + 180) % 360 - 180
        across = abs(turned) * DEGREE * shrink
        assert across == pytest.approx(reach, rel=1e-3)


def test_overlapping_footprints():
    metres = np.array([[0, 0], [630, 0], [650, 650], [0, 2000], [0, 2340]])  # east, north
    cells = np.array([64, 64, 64, 64, 6])
    lat = 50 + metres[:, 1] / DEGREE
    lon = 3 + metres[:, 0] / DEGREE / np.cos(np.radians(lat))
    rows = rows_of(5, lon=lon, lat=lat, cells=cells)
    found = overlapping(rows, listed=10)
    # Two tiles of 64 cells overlap up to 640 m apart, one of 64 and one of 6 up to 350 m.
    assert found.first == [(0, 1), (3, 4)]
    assert found.count == 2
    assert overlapping(rows, listed=1).first == [(0, 1)]
    assert overlapping(rows_of(0), listed=5).count == 0


def test_equal_values():
    rows = rows_of(6, key_hash=[7, 3, 7, 9, 3, 7])
    for most in (6, 2):
        found = equal_values(rows, "key_hash", listed=2, most=most)
        assert found.count == 3 and found.first == [(0, 2), (1, 4)]
    assert equal_values(rows_of(0), "key_hash", listed=2).count == 0


@pytest.mark.parametrize("middle", [20, 180])
def test_parts_find_what_all_at_once_find(middle):
    rng = np.random.default_rng(middle)
    lat = rng.normal(50, 0.01, 400)
    lat[rng.random(400) < 0.1] = np.nan
    lon = (middle + rng.normal(0, 0.01, 400) + 180) % 360 - 180
    hashes = rng.choice([5, 5 ^ 0b111, 1 << 40, NO_HASH], 400)
    rows = rows_of(400, lat=lat, lon=lon, cells=rng.integers(4, 40, 400), hr_hash=hashes)
    whole = overlapping(rows, listed=9)
    assert whole.count > 1000 and overlapping(rows, listed=9, most=7) == whole
    lat = 50 + rng.integers(0, 3, 400) * 5 / DEGREE
    rows = rows_of(400, lat=lat, lon=lon, hr_hash=hashes)
    whole = same_picture(rows, "hr_hash", listed=9)
    assert whole.count > 10 and same_picture(rows, "hr_hash", listed=9, most=50) == whole


def scene(seed: int, side: int = 256) -> np.ndarray:
    """A picture with fields and noise."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.uniform(40, 200, (8, 8)), np.ones((side // 8, side // 8)))
    return np.clip(fields + rng.normal(0, 8, (side, side)), 0, 255)


def test_hash_bits_are_the_low_cosines():
    image = scene(0)
    low = dctn(image - image.mean(), norm="ortho")[:8, :8].ravel()[1:]
    expected = sum(1 << i for i, bit in enumerate(low > np.median(low)) if bit)
    assert picture_hash(image, np.ones((8, 8), bool)) == expected


def test_hashes_of_one_picture_are_near_and_of_others_far():
    valid = np.ones((8, 8), bool)
    first = np.array([picture_hash(scene(seed), valid) for seed in range(40)])
    changed = []
    for seed in range(40):
        buffer = io.BytesIO()
        Image.fromarray(scene(seed).astype(np.uint8)).save(buffer, "jpeg", quality=60)
        changed.append(picture_hash(1.3 * np.asarray(Image.open(buffer), np.float64) + 9, valid))
    apart = hamming_distance(first[:, None], np.array(changed)[None])
    assert np.diag(apart).max() <= 4
    others = apart[~np.eye(40, dtype=bool)]
    assert (others <= 6).mean() < 0.001 and others.mean() == pytest.approx(31, abs=2)


def test_what_has_no_picture_hash():
    assert picture_hash(np.full((64, 64), 9.0), np.ones((8, 8), bool)) is None
    assert (
        picture_hash(scene(0), np.arange(64).reshape(8, 8) > 40) is None
    )  # less than half is valid
    assert picture_hash(np.random.default_rng(0).normal(size=(6, 6)), np.ones((6, 6), bool)) is None
    image = scene(1)
    valid = np.ones((8, 8), bool)
    valid[0, 0] = False
    spoilt = image.copy()
    spoilt[:32, :32] = 1e6
    assert picture_hash(image, valid) == picture_hash(spoilt, valid)


def test_the_same_picture_counts_at_the_same_place_only():
    hashes = np.array([5, 5 ^ 0b111, 5, 1 << 40, NO_HASH])
    lat = np.array([50, 50 + 8 / DEGREE, 50 + 12 / DEGREE, 50, 50])
    lon = np.full(5, 3.0)
    # 0 and 1 lie 8 m apart and differ in 3 bits, 1 and 2 lie 4 m apart; 0 and 2 lie 12 m apart; 3
    # differs in 3 bits
    rows = rows_of(5, lon=lon, lat=lat, hr_hash=hashes)
    found = same_picture(rows, "hr_hash", listed=9)
    assert found.first == [(0, 1), (0, 3), (1, 2), (1, 3)]
    hashes[3] ^= 0b11111 << 20
    rows = rows_of(5, lon=lon, lat=lat, hr_hash=hashes)
    assert same_picture(rows, "hr_hash", listed=9).first == [(0, 1), (1, 2)]


def test_content_is_what_the_members_hold():
    image = Member(size=3, crc32c=7, offset=512, name="a.hr.png")
    meta = Member(size=1, crc32c=2, offset=0, name="a.meta.json")
    moved = Member(size=3, crc32c=7, offset=4096, name="b.hr.png")
    renamed = Member(size=1, crc32c=9, offset=0, name="a.meta.json")
    changed = Member(size=3, crc32c=8, offset=512, name="a.hr.png")
    one = content_hash({"hr": image, "meta": meta})
    assert content_hash({"meta": renamed, "hr": moved}) == one
    assert content_hash({"hr": changed}) != one
    assert content_hash({"ms": image}) != one


def test_the_memory_of_a_search_does_not_grow_with_the_samples():
    rng = np.random.default_rng(0)
    peaks = []
    for count in (200_000, 800_000):
        lon, lat = rng.uniform(-180, 180, count), rng.uniform(-60, 75, count)
        rows = rows_of(count, lon=lon, lat=lat, cells=1)
        tracemalloc.start()
        overlapping(rows, listed=1, most=100_000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]
