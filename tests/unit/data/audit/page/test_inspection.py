"""The picture of one sample: what it draws, and what it refuses."""

from dataclasses import replace

import matplotlib.image
import numpy as np
import pytest

from data.audit.page import inspection
from data.audit.page.inspection import draw, draw_sample
from data.errors import InputError
from data.shards.writer import write_shards
from data.stream.cut import cut_sample
from data.stream.mixture import Mixture
from tests.unit.tiles import SETTINGS, make_tile


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected")
    tiles = [
        make_tile("everything", 1),
        make_tile("optical", 2, modalities=("hr",), labels=False),
        make_tile("series", 3, modalities=("ms", "sar")),
    ]
    write_shards(tiles, folder)
    return replace(SETTINGS, shards=str(folder))


@pytest.mark.parametrize("key", ["everything", "optical", "series"])
def test_a_picture_is_written(settings, tmp_path, key):
    out = tmp_path / "sample.png"
    assert draw_sample(settings, out, key=key, step=2) == f"{key}, use 2"
    assert np.ptp(matplotlib.image.imread(out)[..., :3]) > 0.5


def test_every_drawn_frame_and_view_has_its_place(settings):
    dataset = Mixture.open(settings)
    sample = dataset.keys().index("everything")
    cut = cut_sample(dataset, settings, seed=0, sample=sample, use=0)
    figure = draw(cut, dataset.classes)
    titles = [axis.get_title() for band in figure.subfigs for axis in band.axes]
    for frame, date in enumerate(cut.draw.dates["ms"], 1):
        assert f"ms {frame}/3 {date}" in titles
    for content in ("hr", "ms", "sar", "labels"):
        crops = [f"{name} {content}" for name in ("global 1", "global 2", "local 1", "local 2")]
        assert set(crops) <= set(titles)


def test_the_sample_is_cut_once_and_nothing_is_read_beside(settings, tmp_path, monkeypatch):
    dataset = Mixture.open(settings)
    key = dataset.keys()[0]  # the whole index is read by now
    monkeypatch.setattr(inspection.Mixture, "open", lambda _: dataset)
    cut_sample(dataset, settings, seed=0, sample=0, use=0)
    before = dataset.counts["bytes"]
    cut_sample(dataset, settings, seed=0, sample=0, use=0)
    once = dataset.counts["bytes"] - before
    draw_sample(settings, tmp_path / "sample.png", key=key)
    assert dataset.counts["bytes"] - before - once == once > 0


@pytest.mark.parametrize(
    "options,line",
    [
        ({"key": "nowhere"}, "no sample 'nowhere' among 3"),
        ({"step": -1}, "--step: expected 0 or more, found -1"),
        ({"out": "sample.jpg"}, "expected a name ending in .png"),
        ({"out": "missing/sample.png"}, "in a folder that exists"),
    ],
)
def test_wrong_requests_are_refused_in_one_line(settings, tmp_path, options, line):
    options = dict(options)
    out = tmp_path / options.pop("out", "sample.png")
    with pytest.raises(InputError) as error:
        draw_sample(settings, out, **options)
    assert line in str(error.value) and "\n" not in str(error.value)
