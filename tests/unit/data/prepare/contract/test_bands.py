"""Names of bands as archives have them, and which band of a sensor each is."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.contract.bands import find_bands, registry_name
from data.tiles.modalities import MODALITIES

HR, MS, SAR = MODALITIES["hr"], MODALITIES["ms"], MODALITIES["sar"]
EARTH_ENGINE = ["B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12", "QA60"]
COMMON = [
    "blue",
    "green",
    "red",
    "rededge1",
    "rededge2",
    "rededge3",
    "nir",
    "nir08",
    "swir16",
    "swir22",
]  # of STAC


def find(keys, names, sensor=MS, ordered=True, alpha=None):
    return find_bands(keys, names, sensor, where="a.tif", ordered=ordered, alpha=alpha)


@pytest.mark.parametrize(
    ("name", "sensor", "band"),
    [
        ("B2", MS, "B02"),
        ("b08", MS, "B08"),
        ("B8A", MS, "B8A"),
        ("B4, central wavelength 665 nm", MS, "B04"),
        ("B11_20m", MS, "B11"),
        ("20200101T103021_20200101T103026_T32UNU_B12", MS, "B12"),
        ("0_B5", MS, "B05"),
        ("Red Edge 1", MS, "B05"),
        ("nir08", MS, "B8A"),
        ("NIR", MS, "B08"),
        ("SWIR-2", MS, "B12"),
        ("Gamma0_VV", SAR, "VV"),
        ("Sigma0_VH_db", SAR, "VH"),
        ("vv", SAR, "VV"),
        ("Red", HR, "R"),
        ("blue", HR, "B"),
        ("B1", MS, None),
        ("B10", MS, None),
        ("rededge", MS, None),  # three bands have this common name
        ("VV/VH", SAR, None),
        ("Beta0_VV", SAR, None),  # another calibration
        ("Intensity_VV", SAR, None),  # not calibrated
        ("B2_stdDev", MS, None),
        ("coastal_blue", HR, None),
        ("NearInfrared", HR, None),
        ("QA60", MS, None),
    ],
)
def test_common_names(name, sensor, band):
    assert registry_name(name, sensor) == band


def test_an_export_of_earth_engine_in_every_way():
    positions = {band: EARTH_ENGINE.index(band.replace("B0", "B")) for band in MS.bands}
    unpadded = tuple(band.replace("B0", "B") for band in MS.bands)
    for keys in (
        MS.bands,
        unpadded,
        tuple(EARTH_ENGINE),
        tuple(COMMON),
        {band: band.replace("B0", "B") for band in MS.bands},
        {band: positions[band] + 1 for band in MS.bands},
        tuple(positions[band] + 1 for band in MS.bands),
        tuple(str(positions[band] + 1) for band in MS.bands),  # as a table has it
    ):
        assert find(keys, EARTH_ENGINE) == positions


@given(st.permutations(range(10)), st.sampled_from(["registry", "common", "unpadded"]))
def test_any_order_of_variables_is_found_by_name(order, spelling):
    spellings = {
        "registry": MS.bands,
        "common": COMMON,
        "unpadded": [band.replace("B0", "B") for band in MS.bands],
    }
    names = ["time", *(spellings[spelling][i] for i in order), "scl"]
    positions = find(MS.bands, names, ordered=False)
    assert list(positions) == list(MS.bands)
    np.testing.assert_array_equal(
        np.array(order)[np.array(list(positions.values())) - 1], range(10)
    )


@pytest.mark.parametrize(
    "names",
    [
        [None] * 4,
        ["bands"] * 4,
        ["Band 1", "Band 2", "Band 3", "Band 4"],
        ["b1", "b2", "b3", "b4"],
        ["Gray", "", "", ""],
    ],
)
def test_names_that_say_nothing_leave_the_word_to_the_manifest(names):
    assert find(("B", "G", "R", "N"), names, HR) == {"R": 2, "G": 1, "B": 0}
    assert find({"R": 3, "G": 2, "B": 1}, names, HR) == {"R": 2, "G": 1, "B": 0}
    assert find((3, 2, 1), names, HR) == {"R": 2, "G": 1, "B": 0}
    with pytest.raises(InputError, match="has 4 bands without names; name all of them"):
        find(("R", "G", "B"), names, HR)


def test_opacity_needs_no_name():
    names = [None] * 4
    assert find(("R", "G", "B"), names, HR, alpha=3) == {"R": 0, "G": 1, "B": 2}
    assert find(("R", "G", "B"), names, HR, alpha=0) == {"R": 1, "G": 2, "B": 3}
    assert find(("R", "G", "B", "A"), names, HR, alpha=3) == {"R": 0, "G": 1, "B": 2}
    assert find(("NIR", "R", "G", "B"), names, HR, alpha=3) == {"R": 1, "G": 2, "B": 3}


@pytest.mark.parametrize(
    ("keys", "names", "sensor", "message"),
    [
        (("VV", "VH"), ["VH", "VV"], SAR, "the file calls band 1 'VH', the manifest 'VV'"),
        (("VV", "VH"), ["HH", "HV"], SAR, "the file calls band 1 'HH', the manifest 'VV'"),
        ({"VV": 2, "VH": 1}, ["VV", "VH"], SAR, "the file calls band 2 'VH', the manifest 'VV'"),
        ({"VV": 1, "VH": 3}, [None, None], SAR, "band VH: no band number 3; the file has 2 bands"),
        ({"VV": 1, "VH": 0}, [None, None], SAR, "no band number 0"),
        ({"VV": 1, "VH": 1}, [None, None], SAR, "name one band of the file twice"),
        (("VV", "VH", "vh"), [None] * 3, SAR, "name .'VH'. of sar more than once"),
        (("VV", "VH"), ["VV_asc", "VV_desc", "VH"], SAR, "could be any of .'VV_asc', 'VV_desc'."),
        (("VV", "VX"), [None, None], SAR, "lack .'VH'. of sar"),
        (("VV", "VH", "angle"), ["VV", "VH"], SAR, "no band 'angle'; the file has 2 bands"),
        (
            {"VV": "intensty", "VH": "VH"},
            ["intensity", "VH"],
            SAR,
            "no band 'intensty'; the file has 2 bands: .'intensity'",
        ),
        ((1, 2, 3), [None] * 3, SAR, "expected a number for each of .'VV', 'VH'."),
    ],
)
def test_what_is_refused(keys, names, sensor, message):
    with pytest.raises(InputError, match=f"a.tif: .*{message}"):
        find(keys, names, sensor)


def test_the_own_name_of_a_band_has_the_last_word():
    """FORCE calls B8A NIR, which is the common name of B08."""
    force = [
        "BLUE",
        "GREEN",
        "RED",
        "REDEDGE1",
        "REDEDGE2",
        "REDEDGE3",
        "BROADNIR",
        "NIR",
        "SWIR1",
        "SWIR2",
    ]
    with pytest.raises(InputError, match="the file calls band 8 'NIR', the manifest 'B8A'"):
        find(MS.bands, force)
    assert list(find(dict(zip(MS.bands, force)), force).values()) == list(range(10))
