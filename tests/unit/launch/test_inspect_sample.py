"""Sizes of views on the command line of ``skysense inspect``."""

import argparse

import pytest

from data.errors import InputError
from data.stream.settings import ViewSettings
from launch.inspect_sample import add_arguments, views_of


def options(*words: str) -> argparse.Namespace:
    """What argparse makes of a command line."""
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    return parser.parse_args(["shards", "--out", "a.png", *words])


def test_named_sensors_get_other_pixels_and_the_rest_keep_theirs():
    views = views_of(options("--global_pixels", "ms=32", "fine=40", "--local_pixels", "hr=96"))
    paper = ViewSettings()
    assert views.global_pixels == {**paper.global_pixels, "ms": 32, "fine": 40}
    assert views.local_pixels == {**paper.local_pixels, "hr": 96}
    assert views_of(options()) == paper


@pytest.mark.parametrize("word", ["ms", "ms=", "ms=-8", "ms=1.5", "=8"])
def test_what_is_no_sensor_with_pixels_is_refused(word):
    with pytest.raises(InputError, match=f"--local_pixels: expected SENSOR=PIXELS, .*'{word}'"):
        views_of(options("--local_pixels", word))
