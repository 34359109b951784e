"""Cubes with CF attributes, from file to frames, against the conventions' formula in float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.place.grid import Grid
from data.prepare.readers.cube import NO_FRAMES, NetcdfCube, ZarrCube
from data.tiles.modalities import MODALITIES
from tests.unit.data.prepare.cf.stores import KINDS, LEFT, TOP, UTM, N, axes_of, write_store

GRID = Grid(UTM, LEFT, TOP, N)
AXES = ("time", "y", "x")
BANDS = MODALITIES["ms"].bands
SAR = {"VV": "vv", "VH": "vh"}


def reader_of(path, kind, variables, **keys):
    write_store(path, kind, variables)
    keys.setdefault("modality", "ms")
    keys.setdefault("bands", {band: band for band in MODALITIES[keys["modality"]].bands})
    return (NetcdfCube if kind == "netcdf" else ZarrCube)(path=path, **keys)


def frames_of(reader):
    assert reader.check_keys() == []
    reader.check()
    (frames,) = reader.read(GRID)
    return frames


PACKINGS = st.tuples(
    st.sampled_from([1e-4, np.float32(1e-4), 2e-4, 6e-5]),
    st.sampled_from([0.0, -0.1, 0.05]),
    st.sampled_from([-9999, -1, 30_000]),
    st.sampled_from(["_FillValue", "missing_value"]),
)


@settings(max_examples=12, deadline=None)
@given(
    packings=st.lists(PACKINGS, min_size=len(BANDS), max_size=len(BANDS)),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**32 - 1),
)
def test_every_band_has_a_packing_of_its_own(tmp_path_factory, packings, kind, seed):
    draw = np.random.default_rng(seed)
    variables = axes_of(2)
    missing = np.zeros((2, N, N), bool)
    expected = []
    for band, (scale, offset, fill, key) in zip(BANDS, packings):
        raw = draw.integers(2500, 12_000, (2, N, N)).astype(np.int16)
        spoilt = draw.random(raw.shape) < 0.05
        raw[spoilt] = fill
        missing |= spoilt
        attributes = {"scale_factor": scale, "add_offset": offset, key: np.int16(fill)}
        variables[band] = (AXES, raw, attributes)
        expected.append(np.rint((raw * np.float64(scale) + offset) * 1e4).clip(1))
    path = tmp_path_factory.mktemp("packed") / "cube"
    frames = frames_of(reader_of(path, kind, variables))
    np.testing.assert_array_equal(frames.valid, ~missing)
    for position, values in enumerate(expected):
        np.testing.assert_array_equal(frames.array[:, position][~missing], values[~missing])
    assert not frames.array[:, :][np.broadcast_to(missing[:, None], frames.array.shape)].any()


@pytest.mark.parametrize("kind", KINDS)
def test_keys_win_over_scale_and_offset_and_add_to_what_is_missing(tmp_path, kind):
    raw = np.full((1, N, N), 3000, np.int16)
    raw[0, 0] = -1
    raw[0, 1] = -2
    attributes = {"scale_factor": 1.0e-3, "add_offset": 7.0, "_FillValue": np.int16(-1)}
    variables = axes_of(1, **dict.fromkeys(BANDS, (AXES, raw, attributes)))
    keys = {"scale": 1e-4, "offset": -0.1, "nodata": -2.0}
    frames = frames_of(reader_of(tmp_path / "cube", kind, variables, **keys))
    assert not frames.valid[0, :2].any() and frames.valid[0, 2:].all()
    assert (frames.array[0, :, 2:] == 2000).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("fill", ["NaN", "Infinity", "-Infinity", -9999.0, 1e20])
def test_what_a_float_gives_for_none(tmp_path, kind, fill):
    decibel = np.full((1, N, N), -12.5, np.float32)
    decibel[0, :3] = float(fill)
    variables = axes_of(1)
    variables["vv"] = (AXES, decibel, {"_FillValue": fill})
    variables["vh"] = (AXES, np.full((1, N, N), -20.0, np.float32), {"_FillValue": fill})
    frames = frames_of(reader_of(tmp_path / "cube", kind, variables, modality="sar", bands=SAR))
    assert not frames.valid[0, :3].any() and frames.valid[0, 3:].all()
    assert (frames.array[0, 0, 3:] == -12.5).all()


@pytest.mark.parametrize("kind", KINDS)
def test_signed_files_of_unsigned_numbers(tmp_path, kind):
    raw = np.full((1, N, N), 40_000, np.uint16)
    raw[0, 0] = 65_535
    attributes = {"_Unsigned": "true", "_FillValue": np.int16(-1), "scale_factor": 2e-5}
    variables = axes_of(1, **{band: (AXES, raw.view(np.int16), attributes) for band in BANDS})
    frames = frames_of(reader_of(tmp_path / "cube", kind, variables))
    assert not frames.valid[0, 0].any() and frames.valid[0, 1:].all()
    assert (frames.array[0, :, 1:] == 8000).all()


def test_black_is_a_colour(tmp_path):
    """A pixel of a picture is missing where all bands have the fill value, not where one has."""
    side = N * MODALITIES["hr"].pixels
    pixel = 10 / MODALITIES["hr"].pixels
    centres = (np.arange(side) + 0.5) * pixel
    variables = axes_of(1, y=(("y",), TOP - centres, {}), x=(("x",), LEFT + centres, {}))
    for band, level in (("R", 200), ("G", 0), ("B", 30)):
        raw = np.full((1, side, side), level, np.uint8)
        raw[0, :32] = 0
        variables[band] = (AXES, raw, {"_FillValue": np.uint8(0)})
    frames = frames_of(reader_of(tmp_path / "cube", "netcdf", variables, modality="hr"))
    assert not frames.valid[0, :32].any() and frames.valid[0, 32:].all()
    assert [int(level) for level in frames.array[0, :, -1, -1]] == [200, 0, 30]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "codes, attributes, masked, hidden",
    [
        (np.float32([4, 9, np.nan, 4]), {}, (9,), [0, 1, 1, 0]),
        (np.uint8([4, 9, 255, 0]), {"_FillValue": np.uint8(255)}, (9,), [0, 1, 1, 0]),
        (np.int16([1, 3, 4, 6]), {"flag_masks": [1, 2, 4]}, (2,), [0, 1, 0, 1]),
        (np.float32([0, 1, 0.5, 0]), {}, (1,), [0, 1, 1, 0]),
        (np.int8([0, -2, 1, 0]), {"_Unsigned": "true"}, (254,), [0, 1, 0, 0]),
    ],
)
def test_masks(tmp_path, kind, codes, attributes, masked, hidden):
    raw = np.full((1, N, N), 1500, np.uint16)
    variables = axes_of(1, **{band: (AXES, raw, {}) for band in BANDS})
    plane = np.repeat(codes, N // 4)[None, :, None].repeat(N, 2)
    variables["mask"] = (AXES, plane, attributes)
    reader = reader_of(tmp_path / "cube", kind, variables, mask="mask", masked=masked)
    expected = ~np.repeat(np.array(hidden, bool), N // 4)
    np.testing.assert_array_equal(frames_of(reader).valid[0], np.tile(expected[:, None], (1, N)))


def test_fields_of_bits_are_refused(tmp_path):
    raw = np.full((1, N, N), 1500, np.uint16)
    variables = axes_of(1, **{band: (AXES, raw, {}) for band in BANDS})
    variables["qa"] = (AXES, raw, {"flag_masks": [3, 12], "flag_values": [1, 4]})
    reader = reader_of(tmp_path / "cube", "netcdf", variables, mask="qa", masked=(1,))
    with pytest.raises(InputError, match="cube: qa: attributes flag_masks and flag_values"):
        reader.check()


@pytest.mark.parametrize("kind", KINDS)
def test_frames_without_a_time_and_series_without_frames(tmp_path, kind):
    times = {"units": "days since 2020-05-01", "calendar": "proleptic_gregorian"}
    raw = np.full((2, N, N), 1500, np.uint16)
    raw[1] = 1600
    variables = axes_of(2, **{band: (AXES, raw, {}) for band in BANDS})
    variables["time"] = (("time",), np.array([np.iinfo("i8").min, 3]), times)
    frames = frames_of(reader_of(tmp_path / "one", kind, variables))
    assert frames.dates == ["2020-05-04"] and (frames.array == 1600).all()
    assert frames.source == "one (without 1 of 2 frames, whose time is missing)"
    variables["time"] = (("time",), np.array([np.iinfo("i8").min] * 2), times)
    with pytest.raises(InputError, match="never: time: expected times, found 2 missing ones"):
        reader_of(tmp_path / "never", kind, variables).check()
    variables |= {band: (AXES, raw[:0], {}) for band in BANDS}
    variables["time"] = (("time",), np.array([], "i8"), times)
    reader = reader_of(tmp_path / "none", kind, variables)
    reader.check()
    assert reader.read(GRID) == [NO_FRAMES]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [("time", "band", "y", "x"), ("band", "y", "time", "x")])
def test_bands_along_an_axis_of_one_variable(tmp_path, kind, axes):
    """As xarray writes stacks of a catalogue's items: a coordinate of texts names the bands."""
    names = ["B8A", "SCL", *[band for band in BANDS if band != "B8A"]]
    rng = np.random.default_rng(0)
    stack = rng.integers(500, 5000, (2, len(names), N, N)).astype(np.float64)
    stack[1, names.index("B05"), 2, 3] = np.nan
    stack[:, 1] = 4
    stack[0, 1, 5, 6] = 9  # a cloud
    order = [("time", "band", "y", "x").index(axis) for axis in axes]
    texts = np.array(names, "S3" if kind == "netcdf" else "<U3")
    variables = axes_of(2, band=(("band",), texts, {}))
    attributes = {"grid_mapping": "spatial_ref"}
    variables["stackstac-1"] = (axes, np.ascontiguousarray(stack.transpose(order)), attributes)
    keys = {"bands": list(BANDS), "mask": "SCL", "masked": (9,)}
    reader = reader_of(tmp_path / "cube", kind, variables, **keys)
    frames = frames_of(reader)
    valid = np.ones((2, N, N), bool)
    valid[1, 2, 3] = valid[0, 5, 6] = False
    np.testing.assert_array_equal(frames.valid, valid)
    expected = stack[:, [names.index(band) for band in BANDS]]
    for frame in range(2):
        seen = valid[frame]
        np.testing.assert_array_equal(frames.array[frame][:, seen], expected[frame][:, seen])


@pytest.mark.parametrize("kind", KINDS)
def test_bands_without_a_scale_beside_some_with_one_are_refused(tmp_path, kind):
    variables = axes_of(2)
    for number, band in enumerate(BANDS):
        attributes = {"scale_factor": 5e-5} if number % 2 else {}
        raw = np.full((2, N, N), 1500 * (1 + number % 2), np.uint16)
        variables[band] = (AXES, raw, attributes)
    reader = reader_of(tmp_path / "a", kind, variables)
    with pytest.raises(InputError, match=r"a: the file gives a scale for the bands \['B03'"):
        reader.check()


@pytest.mark.parametrize("kind", KINDS)
def test_one_band_of_fractions_beside_others(tmp_path, kind):
    variables = axes_of(2)
    for band in BANDS:
        variables[band] = (AXES, np.full((2, N, N), 1500, np.uint16), {})
    variables["B11"] = (AXES, np.full((2, N, N), 0.15, np.float32), {})
    reader = reader_of(tmp_path / "a", kind, variables)
    with pytest.raises(InputError, match=r"a: B11: expected reflectance x 10,000, found .* 0.15"):
        frames_of(reader)
