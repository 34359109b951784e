"""Tiles beside others: spectra of a few land covers, drawn at random, and sources with faults."""

import numpy as np
import pytest

from data.audit.measure.profile import Profile
from data.audit.measure.sources import MOST_SOURCES, OTHERS, Sources, source_name
from data.audit.rules.comparison import compared_faults
from data.audit.rules.reference import OF_ALL, Place, Rows, Smallest, row_type
from data.audit.rules.source_rules import source_faults
from data.audit.rules.suspects import Suspects

# Medians of forest, soil, water and snow in BigEarthNet, reflectance x 1e4.
COVERS = np.array(
    [
        [201, 334, 212, 570, 1712, 2068, 2192, 2277, 1073, 516],
        [855, 1126, 1538, 1879, 2149, 2370, 2522, 2719, 4003, 2597],
        [208, 213, 179, 172, 155, 154, 160, 148, 130, 115],
        [2958, 2562, 2451, 2706, 3136, 3217, 3373, 3250, 346, 375],
    ],
    float,
)


def medians(number: int, seed: int) -> np.ndarray:
    """Spectra (n, 10) of the land covers in turn, each with its own brightness and noise."""
    rng = np.random.default_rng(seed)
    brightness = rng.normal(0, 0.15, (number, 1))
    noise = rng.normal(0, 0.06, (number, 10))
    return COVERS[np.arange(number) % len(COVERS)] * np.exp(brightness + noise)


def profile(median: np.ndarray) -> Profile:
    """A profile with these medians."""
    return Profile(
        pixels=100,
        valid_share=1.0,
        empty_share=0.0,
        low=0.8 * median,
        median=median,
        high=1.3 * median,
        std=0.2 * median,
        jumps=0.0,
        day=737_000.0,
    )


def rows_of(spectra: np.ndarray, sources: np.ndarray) -> Rows:
    """The rows of tiles of Sentinel-2, each of its own file."""
    rows = Rows.of_bands(10)
    rng = np.random.default_rng(0)
    for number, (median, source) in enumerate(zip(spectra, sources)):
        place = Place(number, int(source), files=number, key_hash=int(rng.integers(1 << 62)))
        rows.add(place, profile(median))
    return rows


def tile_faults(spectra: np.ndarray) -> list[tuple[int, str]]:
    """Tile and kind of every fault among tiles of one source."""
    rows = rows_of(spectra, np.zeros(len(spectra), int))
    return [(sample, fault.kind) for sample, _, fault in compared_faults("ms", rows)]


@pytest.mark.parametrize("seed", range(5))
def test_land_covers_are_no_faults(seed):
    assert tile_faults(medians(60, seed)) == []


@pytest.mark.parametrize("tile", [0, 1, 4, 5])  # forest and soil
@pytest.mark.parametrize("factor", [10, 0.1])
def test_a_factor_of_ten_is_found(tile, factor):
    spectra = medians(60, 1)
    spectra[tile] *= factor
    assert tile_faults(spectra) == [(tile, "scale")]


@pytest.mark.parametrize("pair", [(2, 6), (0, 9), (1, 7), (3, 8)])
def test_exchanged_bands_are_found(pair):
    spectra = medians(60, 2)
    first, second = pair
    spectra[8, [first, second]] = spectra[8, [second, first]]
    assert tile_faults(spectra) == [(8, "bands exchanged")]


def test_a_lonely_place_is_no_fault():
    """One snow field among forests is far from all, but nothing undone brings it near."""
    spectra = np.concatenate([medians(60, 3)[::4], COVERS[3:]])
    assert tile_faults(spectra) == []


def test_tiles_of_one_wrong_scene_do_not_vouch_for_each_other():
    rows = Rows.of_bands(10)
    spectra = medians(120, 4)
    spectra[::4][:5] *= 10  # five tiles of forest, cut from one scene
    scene = set(range(0, 20, 4))
    for number, median in enumerate(spectra):
        files = number
        if number in scene:
            files = -7
        rows.add(Place(number, 0, files=files, key_hash=number), profile(median))
    found = {sample for sample, _, fault in compared_faults("ms", rows) if fault.kind == "scale"}
    assert found == scene


@pytest.mark.parametrize(
    "change, kind, verdict",
    [
        (lambda spectra: spectra * 10, "scale", "wrong"),
        (lambda spectra: spectra[:, [0, 1, 6, 3, 4, 5, 2, 7, 8, 9]], "bands exchanged", "wrong"),
        (lambda spectra: spectra * 0.5 + 1300, "offset", "look"),
    ],
)
def test_what_all_tiles_of_a_source_share_is_found(change, kind, verdict):
    """Forests of two sources, one of them wrong as a whole: its tiles do not stand out."""
    spectra = medians(160, 5)[::4]  # 40 forests
    spectra[20:] = change(spectra[20:])
    rows = rows_of(spectra, np.arange(40) // 20)
    faults = [(source, fault.kind, fault.verdict) for source, fault in source_faults("ms", rows)]
    assert (1, kind, verdict) in faults
    assert {entry[1:] for entry in faults} == {(kind, verdict)}


def test_the_rows_kept_do_not_depend_on_the_order():
    rng = np.random.default_rng(6)
    hashes = rng.permutation(5000)
    row = np.zeros((), row_type(2))
    kept = []
    for order in (range(5000), rng.permutation(5000).tolist()):
        smallest = Smallest(OF_ALL)
        for number in order:
            row["sample"] = number
            place = Place(number, 0, files=0, key_hash=int(hashes[number]))
            smallest.add(place, row.tobytes())
        kept.append(smallest.rows(row_type(2))["sample"].tolist())
    assert kept[0] == kept[1] == sorted(np.argsort(hashes)[:OF_ALL].tolist())


@pytest.mark.parametrize(
    "files, name",
    [
        ("a.tif; b.h5", "me"),
        ("eu/a/1.tif (date accuracy: year); eu/b/2.h5", "me | eu"),
        ("../s2/x.tif; s1/y.tif", "me | s1 | s2"),
        ("https://host.org/c/x.tif", "me | host.org"),
        (
            "S2A_MSIL2A_20230101T101010_N0509_R022_T33UUP_20230101T1.SAFE",
            "me | MSIL2A N0509",
        ),
    ],
)
def test_a_source_is_credit_folder_and_baseline(files, name):
    assert source_name("me", files) == name


def test_many_sources_are_counted_together():
    sources = Sources()
    numbers = [sources.number(f"source {i}") for i in range(MOST_SOURCES + 50)]
    assert len(set(numbers)) == MOST_SOURCES + 1
    assert sources.tallies[numbers[-1]].name == OTHERS
    assert sources.number("source 3") == numbers[3]
    assert len(Suspects().sources.tallies) == 0
