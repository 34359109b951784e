"""Numbers in a wrong unit are refused by what they are; numbers of real surfaces pass."""

from dataclasses import dataclass

import numpy as np
import pytest

from data.errors import InputError
from data.prepare.contract.files import Remote
from data.prepare.contract.source import Frames
from data.prepare.contract.units import DOUBT, check_units, offset_doubt

SIDE = 32
FILE = Remote("https://there.example/s.tif")
# Reflectance x 1e4 of B02 B03 B04 B05 B06 B07 B08 B8A B11 B12, typical of Level-2A.
FOREST = (250, 420, 260, 700, 1900, 2300, 2400, 2600, 1200, 550)
WATER = (420, 380, 210, 180, 140, 140, 110, 100, 60, 40)
DESERT = (1350, 2150, 3100, 3350, 3450, 3550, 3600, 3700, 4500, 4000)
SNOW = (9200, 9300, 9400, 9300, 9100, 8900, 8700, 8500, 900, 800)
LOW_SUN_CLOUD = (17240, 15070, 13430, 13910, 12770, 11800, 15450, 11100, 4012, 3667)
CLOUD = (6500, 6300, 6200, 6300, 6500, 6600, 6700, 6700, 4500, 3500)


@dataclass(frozen=True)
class Source:
    """A reader with keys for its numbers."""

    path: Remote = FILE
    scale: float | None = None
    units: str = "db"


def optical(surface, seed=0, frames=1) -> np.ndarray:
    """(T, 10, H, W) of a surface whose brightness varies by a fifth from pixel to pixel."""
    rng = np.random.default_rng(seed)
    light = rng.lognormal(0, 0.2, (frames, 1, SIDE, SIDE))
    return np.asarray(surface, float)[None, :, None, None] * light


def backscatter(vv=0.06, vh=0.012, looks=4.4, seed=0) -> np.ndarray:
    """Linear power (1, 2, H, W) with the speckle of so many looks."""
    speckle = np.random.default_rng(seed).gamma(looks, 1 / looks, (1, 2, SIDE, SIDE))
    return speckle * np.array([vv, vh])[None, :, None, None]


def frames_of(modality, array) -> Frames:
    dtype = {"ms": np.uint16, "sar": np.float32, "hr": np.uint8}[modality]
    if dtype != np.float32:
        array = np.rint(array).clip(np.iinfo(dtype).min, np.iinfo(dtype).max)
    return Frames(
        modality=modality,
        array=array.astype(dtype),
        valid=np.ones((len(array), *array.shape[2:]), bool),
        dates=[f"2020-05-{i + 1:02}" for i in range(len(array))],
        source="s.tif",
    )


def decibel(power):
    return 10 * np.log10(power)


@pytest.mark.parametrize(
    "numbers, source, words",
    [
        (backscatter(), Source(), ["linear power", "'units'", "'scale'", "2020-05-01", "VV 0.05"]),
        (np.sqrt(backscatter()), Source(), ["amplitude", "'units'"]),
        (np.sqrt(backscatter(150**2, 60**2)), Source(), ["digital numbers", "'units'", "'scale'"]),
        (100 * decibel(backscatter()), Source(), ["dB x 100", "'scale': 0.01"]),
        (10 * decibel(backscatter()), Source(), ["dB x 10", "'scale': 0.1"]),
        (-decibel(backscatter()), Source(), ["minus sign"]),
        (decibel(backscatter()) + 30, Source(), ["minus sign"]),
        (2 * decibel(backscatter()) + 44, Source(), ["another unit or calibration", "'scale'"]),
        (
            decibel(backscatter(150**2, 60**2)),
            Source(units="amplitude"),
            ["not calibrated", "'units'"],
        ),
        (np.zeros((1, 2, SIDE, SIDE)), Source(), ["no observation", "'nodata': 0"]),
        (
            decibel(backscatter()) * (np.arange(SIDE) > 3),
            Source(),
            ["0 for no observation", "'nodata': 0"],
        ),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_backscatter_in_a_wrong_unit_is_refused(numbers, source, words):
    with pytest.raises(InputError) as caught:
        check_units(frames_of("sar", numbers), source)
    message = str(caught.value)
    assert message.startswith("https://there.example/s.tif: ") and "\n" not in message
    for word in words:
        assert word in message


@pytest.mark.parametrize("vv, vh", [(0.06, 0.012), (1.2, 0.15), (0.0015, 0.0009), (3.0, 0.4)])
def test_backscatter_of_field_forest_calm_sea_and_city_passes(vv, vh):
    frames, notes = check_units(frames_of("sar", decibel(backscatter(vv, vh))), Source())
    assert len(frames.dates) == 1 and notes == []


@pytest.mark.parametrize("surface", [FOREST, WATER, DESERT, SNOW, CLOUD, LOW_SUN_CLOUD])
def test_reflectance_of_any_surface_passes(surface):
    frames, notes = check_units(frames_of("ms", optical(surface)), Source())
    assert len(frames.dates) == 1 and notes == [] and offset_doubt(frames) is None


@pytest.mark.parametrize(
    "factor, words",
    [
        (1e-4, ["from 0 to 1", "'scale': 1"]),
        (1e-2, ["percent", "'scale': 0.01"]),
        (10, ["reflectance x 100,000", "'scale': 0.00001"]),
    ],
)
def test_reflectance_in_a_wrong_unit_is_refused(factor, words):
    with pytest.raises(InputError) as caught:
        check_units(frames_of("ms", optical(FOREST) * factor), Source())
    for word in words:
        assert word in str(caught.value)


def test_a_tenth_of_the_usual_numbers_is_told():
    """Such ground is nearly black, which is rare and not impossible; water is."""
    thousandths = optical(FOREST) // 10
    kept, notes = check_units(frames_of("ms", thousandths), Source())
    assert len(kept.dates) == 1 and notes[0].startswith(DOUBT)
    assert "likely reflectance x 1000, or dark ground: give 'scale': 0.001" in notes[0]
    assert check_units(frames_of("ms", optical(WATER)), Source())[1] == []


def test_landsat_numbers_are_named():
    landsat = (optical(DESERT) / 1e4 + 0.2) / 2.75e-5
    with pytest.raises(InputError, match="Landsat Collection 2.*0.0000275.*-0.2"):
        check_units(frames_of("ms", landsat), Source())


@pytest.mark.parametrize("surface", [FOREST, WATER])
@pytest.mark.parametrize("frames", [1, 5])
def test_an_added_thousand_is_told(surface, frames):
    doubt = offset_doubt(frames_of("ms", optical(surface, frames=frames) + 1000))
    assert doubt is not None and "'offset': -0.1" in doubt and f"in {frames} of {frames}" in doubt


def test_an_added_thousand_is_not_told_of_a_few_hazy_frames():
    array = optical(FOREST, frames=6)
    array[:2] += 1000
    assert offset_doubt(frames_of("ms", array)) is None


def test_a_grey_ramp_has_no_added_thousand():
    assert offset_doubt(frames_of("ms", optical([2000] * 10))) is None


def test_a_thousand_that_is_added_since_a_day_is_told_with_the_day():
    array = optical(FOREST, frames=14)
    array[9:] += 1000
    doubt = offset_doubt(frames_of("ms", array))
    assert doubt is not None and "5 of 14 frames, the first of 2020-05-10" in doubt
    array[[1, 6]] += 1000  # haze
    assert offset_doubt(frames_of("ms", array)) is not None
    array[9:] -= 1000
    assert offset_doubt(frames_of("ms", array)) is None


def test_one_impossible_frame_of_a_series_costs_itself_alone():
    array = optical(FOREST, frames=4)
    array[2] *= 10
    frames, notes = check_units(frames_of("ms", array), Source())
    assert frames.dates == ["2020-05-01", "2020-05-02", "2020-05-04"]
    assert len(notes) == 1 and "2020-05-03" in notes[0] and "1 of 4 frames dropped" in notes[0]


def picture(high=255.0) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, high, (1, 3, 32 * 4, 32 * 4))


@pytest.mark.parametrize(
    "numbers, words",
    [
        (picture(1.0), ["from 0 to 1", "'scale': 255"]),
        (picture(2047.0), ["more than 8 bits", "'scale'", "'nodata': 255"]),
        (np.zeros((1, 3, 128, 128)), ["no observation", "'nodata'"]),
    ],
)
def test_pictures_in_a_wrong_unit_are_refused(numbers, words):
    with pytest.raises(InputError) as caught:
        check_units(frames_of("hr", numbers), Source())
    for word in words:
        assert word in str(caught.value)


def test_pictures_pass_and_a_dim_one_is_told():
    assert check_units(frames_of("hr", picture()), Source())[1] == []
    _, notes = check_units(frames_of("hr", picture(8.0)), Source())
    assert len(notes) == 1 and notes[0].startswith("doubtful numbers: s.tif: ")


def test_black_borders_are_told():
    image = picture()
    image[:, :, :, :20] = 0
    _, notes = check_units(frames_of("hr", image), Source())
    assert len(notes) == 1 and "'nodata': 0" in notes[0]


def test_decibels_that_are_taken_for_power_are_told():
    frames = frames_of("sar", decibel(backscatter()))
    frames.valid[:] = False  # no logarithm of a negative number
    _, notes = check_units(frames, Source(units="power"))
    assert len(notes) == 1 and "dB already" in notes[0]


def test_masked_pixels_are_not_judged():
    frames = frames_of("ms", optical(FOREST))
    frames.array[:, :, :10] = 65535
    frames.valid[:, :10] = False
    assert check_units(frames, Source())[1] == []
