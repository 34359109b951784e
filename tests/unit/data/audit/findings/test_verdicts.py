"""The verdicts of an audit follow their limits."""

from dataclasses import replace

from data.audit.findings.records import (
    BandFindings,
    Chart,
    ClassCount,
    ClassFindings,
    RegistrationFindings,
    SharedShift,
    Verdict,
)
from data.audit.findings.verdicts import classes, clipped, off, registered, sizes


def test_verdicts_follow_their_limits():
    band = BandFindings(
        band="R",
        pixels=100,
        mean=10.0,
        std=2.0,
        low=0.0,
        high=1.0,
        share_at_low=0.001,
        share_at_high=0.02,
        percentiles={},
        registry_mean=10.4,
        registry_std=2.0,
        histogram=Chart([], []),
    )
    assert off(band) == ""
    assert off(replace(band, registry_mean=10.6)) == "mean"
    assert off(replace(band, std=2.6)) == off(replace(band, std=1.5)) == "std"
    assert off(replace(band, std=1.7)) == ""
    assert off(replace(band, registry_mean=10.8, std=2.6)) == "mean and std"
    assert clipped({"hr": [band]}).numbers == "hr R 2.0 % at 1"
    assert clipped({"hr": [band]}).verdict == "look"
    assert clipped({"hr": [replace(band, share_at_high=0.0)]}).verdict == "good"
    assert clipped({}).verdict == "unknown"


def test_a_class_that_never_occurs_is_named():
    road = ClassCount(index=0, name="road", pixels=4, share=1.0, samples=1)
    sand = ClassCount(index=1, name="sand", pixels=0, share=0.0, samples=0)
    found = ClassFindings(samples_with_labels=1, pixels=4, labelled_share=1.0, table=[road, sand])
    assert classes(found) == Verdict(
        "Is every class seen?", "look", "1 of 2 seen; never: sand", "all"
    )
    assert classes(replace(found, table=[road])).verdict == "good"
    assert classes(replace(found, samples_with_labels=0)).verdict == "unknown"


def shared_shift(distance: float | None) -> SharedShift:
    return SharedShift(
        attribution="a source",
        tiles=30,
        reason="",
        t=None,
        down_cells=None,
        right_cells=None,
        distance_cells=distance,
        correlation_as_stored=None,
        correlation_at_best=None,
    )


def test_shifts_are_judged_alone_and_together():
    none = RegistrationFindings(
        judged=0,
        cannot_tell={"small": 9},
        median_cells=None,
        beyond_limit=0,
        limit_cells=1.0,
        worst=[],
        shared=[],
    )
    assert registered(none).verdict == "unknown"
    two = replace(none, judged=2, median_cells=0.2)
    assert registered(two).verdict == "good"
    assert registered(replace(two, beyond_limit=1)).verdict == "look"
    for distance, verdict in ((None, "unknown"), (0.9, "good"), (1.1, "look")):
        assert registered(replace(none, shared=[shared_shift(distance)])).verdict == verdict


def test_tiles_that_views_shrink_too_far_are_worth_a_look():
    assert sizes({48: 5}).verdict == sizes({}).verdict == "good"
    answer = sizes({16: 3, 48: 4, 96: 2, 49: 1})
    assert answer.verdict == "look"
    assert answer.numbers.startswith("3 tiles of 10 shrunk further, by up to 4, in a global view")
