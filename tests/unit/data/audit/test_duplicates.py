"""Pairs of samples against all pairs compared one by one, and pictures against pictures that
changed a little."""

import io

import numpy as np
import pytest
from PIL import Image
from scipy.fft import dctn

from data.audit.duplicates import DEGREE, equal, near, overlapping, same_picture
from data.audit.fingerprint import content, distance, looks
from data.tiles.regions import great_circle_km


@pytest.mark.parametrize("lat, reach", [(0, 10), (50, 400), (-75, 400), (84, 1000)])
def test_near_pairs_are_all_pairs(lat, reach):
    rng = np.random.default_rng(lat + 100)
    side = 6 * reach / DEGREE
    lat = lat + rng.uniform(-side, side, 150)
    lon = 8 + rng.uniform(-side, side, 150) / np.cos(np.radians(lat))
    found = [
        (i, j)
        for block in near(lon, lat, reach)
        for i, j in zip(block[0].tolist(), block[1].tolist())
    ]
    assert len(found) == len(set(found))  # each once
    expected = {
        (i, j)
        for i in range(150)
        for j in range(i + 1, 150)
        if abs(lat[i] - lat[j]) * DEGREE <= reach
        and 1000 * great_circle_km(lon[i], (lat[i] + lat[j]) / 2, lon[j], (lat[i] + lat[j]) / 2)
        <= reach
    }
    assert len(expected) > 100
    assert set(found) ^ expected <= {
        pair
        for pair in expected | set(found)  # only what lies on the limit
        if abs(
            abs(lon[pair[0]] - lon[pair[1]]) * DEGREE * np.cos(np.radians(lat[list(pair)].mean()))
            - reach
        )
        < 1e-3 * reach
    }


def test_overlapping_footprints():
    metres = np.array([[0, 0], [630, 0], [650, 650], [0, 2000], [0, 2340]])  # east, north
    cells = np.array([64, 64, 64, 64, 6])
    lat = 50 + metres[:, 1] / DEGREE
    lon = 3 + metres[:, 0] / DEGREE / np.cos(np.radians(lat))
    found = overlapping(lon, lat, cells, 10)
    assert (
        found.first == [(0, 1), (3, 4)] and found.count == 2
    )  # 640 m apart for two of 64 cells; 350 m for 64 and 6
    assert overlapping(lon, lat, cells, 1).first == [(0, 1)]
    assert overlapping(lon[:0], lat[:0], cells[:0], 5).count == 0


def test_equal_values():
    found = equal(np.array([7, 3, 7, 9, 3, 7]), 2)
    assert found.count == 3 and found.first == [(0, 2), (1, 4)]


def scene(seed: int, side: int = 256) -> np.ndarray:
    """A picture with fields and noise."""
    rng = np.random.default_rng(seed)
    fields = np.kron(rng.uniform(40, 200, (8, 8)), np.ones((side // 8, side // 8)))
    return np.clip(fields + rng.normal(0, 8, (side, side)), 0, 255)


def test_hash_bits_are_the_low_cosines():
    image = scene(0)
    low = dctn(image - image.mean(), norm="ortho")[:8, :8].ravel()[1:]
    expected = sum(1 << i for i, bit in enumerate(low > np.median(low)) if bit)
    assert looks(image, np.ones((8, 8), bool)) == expected


def test_hashes_of_one_picture_are_near_and_of_others_far():
    valid = np.ones((8, 8), bool)
    first = np.array([looks(scene(seed), valid) for seed in range(40)])
    changed = []
    for seed in range(40):
        buffer = io.BytesIO()
        Image.fromarray(scene(seed).astype(np.uint8)).save(buffer, "jpeg", quality=60)
        changed.append(looks(1.3 * np.asarray(Image.open(buffer), np.float64) + 9, valid))
    apart = distance(first[:, None], np.array(changed)[None])
    assert np.diag(apart).max() <= 4
    others = apart[~np.eye(40, dtype=bool)]
    assert (others <= 6).mean() < 0.001 and others.mean() == pytest.approx(31, abs=2)


def test_what_has_no_looks():
    assert looks(np.full((64, 64), 9.0), np.ones((8, 8), bool)) is None
    assert looks(scene(0), np.arange(64).reshape(8, 8) > 40) is None  # less than half is valid
    assert looks(np.random.default_rng(0).normal(size=(6, 6)), np.ones((6, 6), bool)) is None
    image, valid = scene(1), np.ones((8, 8), bool)
    valid[0, 0] = False
    spoilt = image.copy()
    spoilt[:32, :32] = 1e6
    assert looks(image, valid) == looks(spoilt, valid)


def test_the_same_picture_counts_at_the_same_place_only():
    hashes = np.array([5, 5 ^ 0b111, 5, 1 << 40, 5])
    lat = np.array([50, 50 + 8 / DEGREE, 50 + 12 / DEGREE, 50, 50])
    lon = np.full(5, 3.0)
    seen = np.array([True, True, True, True, False])
    # 0 and 1 lie 8 m apart and differ in 3 bits, 1 and 2 lie 4 m apart; 0 and 2 lie 12 m apart; 3
    # differs in 3 bits
    assert same_picture(lon, lat, hashes, seen, 9).first == [(0, 1), (0, 3), (1, 2), (1, 3)]
    hashes[3] ^= 0b11111 << 20
    assert same_picture(lon, lat, hashes, seen, 9).first == [(0, 1), (1, 2)]


def test_content_is_what_the_members_hold():
    member = {"size": 3, "crc32c": 7, "offset": 512, "name": "a.hr.png"}
    one = {"hr": member, "meta": {"size": 1, "crc32c": 2, "offset": 0, "name": "a.meta.json"}}
    other = {
        "meta": {**one["meta"], "crc32c": 9},
        "hr": {**member, "offset": 4096, "name": "b.hr.png"},
    }
    assert content(one) == content(other)
    assert content({"hr": {**member, "crc32c": 8}}) != content(one) != content({"ms": member})
