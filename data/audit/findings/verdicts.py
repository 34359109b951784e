"""What the numbers of an audit say: a few plain questions.

Each is answered with its numbers and the limit used.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

from data.audit.findings.records import (
    BandFindings,
    ClassFindings,
    DuplicateFindings,
    RegistrationFindings,
    SeriesFindings,
    Summary,
    SuspectFindings,
    Verdict,
)
from data.audit.measure.fingerprint import BITS
from data.audit.rules.duplicates import SAME_PICTURE, SAME_PLACE
from data.pages.words import number_of
from data.stream.settings import ViewSettings
from data.tiles.shrink import MOST_SHRINK, too_large

WRONG = "wrong"
LOOK = "look"
GOOD = "good"
UNKNOWN = "unknown"
WORST_FIRST = (WRONG, LOOK, GOOD, UNKNOWN)
# Limits. They say where a look is worth its time, not what a dataset must be.
MEAN_OFF = 0.25  # of a registry deviation, between the measured and the registry's mean of a band
STD_RATIO = 1.25  # between the measured and the registry's deviation, either way
CLIPPED = 0.01  # share of a band's pixels at its least or greatest value
INVALID = 0.5  # share of invalid cells of a sensor
UNUSABLE = 0.05  # share of frames without a valid pixel
GAP = 120  # days between neighbouring frames of a sample
NAMED = 8  # classes that a verdict names
ONE_REGION = 0.5  # share of the samples in one region


def verdicts(summary: Summary) -> list[Verdict]:
    """All verdicts on a summary, the worst first."""
    answers = [
        whole(summary),
        *sound(summary.suspects),
        licences(summary.counts.attribution),
        *unique(summary.duplicates),
        registered(summary.registration),
        statistics(summary.bands),
        clipped(summary.bands),
        *observed(summary.series),
        classes(summary.classes),
        sizes(summary.counts.cells),
        spread(summary),
    ]
    return sorted(answers, key=lambda answer: WORST_FIRST.index(answer.verdict))


def whole(summary: Summary) -> Verdict:
    """Every member of every sample can be read and decoded."""
    verdict = GOOD
    if summary.failures:
        verdict = WRONG
    return Verdict(
        "Is every member whole?",
        verdict,
        f"{summary.corrupt_samples} of {number_of(summary.audited, 'sample')}"
        f" with {number_of(len(summary.failures), 'failure')}",
        "none",
    )


def sound(suspects: SuspectFindings) -> list[Verdict]:
    """No tile and no source is unlike what its sensors can show, or unlike all others."""
    kinds = [f"{row.sensor} {row.kind} {row.tiles}" for row in suspects.counts]
    tiles = ", ".join(kinds[:NAMED]) or "none with a fault"
    verdict = _worst(row.verdict for row in suspects.counts)
    sources = [f"{row.source}: {row.sensor} {row.kind}" for row in suspects.sources]
    return [
        Verdict("Is every tile sound?", verdict, tiles, "none"),
        Verdict(
            "Is every source sound?",
            _worst(row.verdict for row in suspects.sources),
            "; ".join(sources[:NAMED]) or "none with a fault",
            "none",
        ),
    ]


def _worst(verdicts: Iterable[str]) -> str:
    """The worst of some verdicts; good without any."""
    return min(verdicts, key=WORST_FIRST.index, default=GOOD)


def licences(credits: Sequence[dict]) -> Verdict:
    """Every sample names its licence and whom to credit."""
    without = 0
    for entry in credits:
        if not (entry["licence"] and entry["attribution"]):
            without += entry["samples"]
    return Verdict(
        "Does every sample name its licence and attribution?",
        _look_if(without > 0),
        f"{number_of(without, 'sample')} without, {len(credits)} different ones",
        "none without",
    )


def unique(duplicates: DuplicateFindings) -> list[Verdict]:
    """No sample occurs twice."""
    keys = duplicates.same_key.pairs
    content = duplicates.same_bytes.pairs
    pictures = duplicates.same_picture.pairs
    key_verdict = GOOD
    if keys:
        key_verdict = WRONG
    return [
        Verdict(
            "Does every key occur only once?",
            key_verdict,
            f"{number_of(keys, 'pair')} of samples with one key",
            "none",
        ),
        Verdict(
            "Are all samples different?",
            _look_if(content > 0),
            f"{number_of(content, 'pair')} with the same bytes in every member",
            "none",
        ),
        Verdict(
            "Does no place show the same picture twice?",
            _look_if(pictures > 0),
            f"{number_of(pictures, 'pair')} within {SAME_PLACE:g} cell whose picture hashes"
            f" differ in at most {SAME_PICTURE} of {BITS} bits",
            "none",
        ),
    ]


def registered(found: RegistrationFindings) -> Verdict:
    """The high-resolution images lie where Sentinel-2 says."""
    question = "Does high resolution lie on Sentinel-2?"
    limit = f"{found.limit_cells:g} cell"
    without = sum(found.cannot_tell.values())
    shared = [shift.distance_cells for shift in found.shared if shift.distance_cells is not None]
    if not found.judged and not shared:
        numbers = f"cannot tell for any of {number_of(without, 'sample')} with both"
        return Verdict(question, UNKNOWN, numbers, limit)
    parts = []
    if found.judged:
        parts.append(
            f"{found.beyond_limit} of {number_of(found.judged, 'sample')} beyond the limit,"
            f" median shift {found.median_cells:.2f} cells"
        )
    far = sum(distance > found.limit_cells for distance in shared)
    if shared:
        parts.append(f"small tiles together: {far} of {number_of(len(shared), 'source')} beyond it")
    return Verdict(
        question,
        _look_if(found.beyond_limit > 0 or far > 0),
        f"{'; '.join(parts)}; alone {number_of(without, 'sample')} cannot tell",
        limit,
    )


def statistics(bands: Mapping[str, Sequence[BandFindings]]) -> Verdict:
    """The registry's means and deviations are those of the data."""
    question = "Do the registry's statistics fit the pixels?"
    limit = f"means {MEAN_OFF:g} registry std apart, std {STD_RATIO:g} times"
    total = 0
    wrong = []
    for name, table in bands.items():
        total += len(table)
        for band in table:
            if off(band):
                wrong.append(f"{name} {band.band}")
    if not total:
        return Verdict(question, UNKNOWN, "no valid pixel", limit)
    numbers = f"{len(wrong)} of {number_of(total, 'band')} off"
    if wrong:
        numbers += f": {', '.join(wrong)}"
    return Verdict(question, _look_if(len(wrong) > 0), numbers, limit)


def off(band: BandFindings) -> str:
    """Which statistics of a band are farther from the registry's than the limits allow.

    Returns:
        "mean", "std", "mean and std", or ""; this also where nobody has measured the sensor before.
    """
    if band.registry_mean is None or band.registry_std is None:
        return ""
    names = []
    if abs(band.mean - band.registry_mean) > MEAN_OFF * band.registry_std:
        names.append("mean")
    ratio = band.std / band.registry_std
    if not 1 / STD_RATIO <= ratio <= STD_RATIO:
        names.append("std")
    return " and ".join(names)


def clipped(bands: Mapping[str, Sequence[BandFindings]]) -> Verdict:
    """No band is cut off.

    A band may be too dark after the correction of the atmosphere, or too bright for the detector.
    """
    question = "Are values not clipped?"
    limit = f"{percent(CLIPPED)} at one end"
    ends = []
    for name, table in bands.items():
        for band in table:
            ends.append(_end(f"{name} {band.band}", band.share_at_low, band.low))
            ends.append(_end(f"{name} {band.band}", band.share_at_high, band.high))
    if not ends:
        return Verdict(question, UNKNOWN, "no valid pixel", limit)
    ends.sort(reverse=True)
    above = [text for share, text in ends if share > CLIPPED]
    if above:
        return Verdict(question, LOOK, ", ".join(above), limit)
    _, most = ends[0]
    return Verdict(question, GOOD, f"most: {most}", limit)


def _end(band: str, share: float, value: float) -> tuple[float, str]:
    """The share of a band's pixels at one of its ends, and the same in words."""
    return share, f"{band} {percent(share)} at {value:g}"


def observed(series: Mapping[str, SeriesFindings]) -> list[Verdict]:
    """Frames show the ground, and follow each other closely enough."""
    invalid = {}
    unusable = {}
    gaps = {}
    for name, entry in series.items():
        unusable[name] = 1 - entry.usable_frames / entry.frames
        if entry.invalid_share is not None:
            invalid[name] = entry.invalid_share
        if entry.gap_longest_days is not None:
            gaps[name] = entry.gap_longest_days
    return [
        _below("Are most pixels valid?", "invalid cells", invalid, limit=INVALID, in_words=percent),
        _below(
            "Can the frames be used?",
            "frames without a valid pixel",
            unusable,
            limit=UNUSABLE,
            in_words=percent,
        ),
        _below("Do the frames follow closely?", "longest gap", gaps, limit=GAP, in_words=_days),
    ]


def classes(found: ClassFindings) -> Verdict:
    """Every class of the table occurs."""
    question = "Is every class seen?"
    if not found.samples_with_labels:
        return Verdict(question, UNKNOWN, "no sample has labels", "all")
    unseen = [entry.name for entry in found.table if not entry.pixels]
    numbers = f"{len(found.table) - len(unseen)} of {len(found.table)} seen"
    if unseen:
        numbers += f"; never: {', '.join(unseen[:NAMED])}"
    if len(unseen) > NAMED:
        numbers += f" and {len(unseen) - NAMED} more"
    return Verdict(question, _look_if(len(unseen) > 0), numbers, "all")


def sizes(cells: Mapping[int, int]) -> Verdict:
    """Views of whole tiles do not shrink the ground too far; see ``data/tiles/shrink.py``."""
    native_cells = ViewSettings().native_cells
    large = too_large(cells, native_cells)
    numbers = "no tiles"
    if cells:
        numbers = (
            f"{number_of(large, 'tile')} of {sum(cells.values())} shrunk further, by up to "
            f"{max(cells) / native_cells:.3g}, in a global view of {native_cells} cells' pixels"
        )
    return Verdict(
        "Do global views keep the details of the ground?",
        _look_if(large > 0),
        numbers,
        f"shrunk by {MOST_SHRINK}, tiles of {MOST_SHRINK * native_cells} cells",
    )


def spread(summary: Summary) -> Verdict:
    """The samples do not lie in one region."""
    regions = summary.places.regions
    most = max((entry.samples for entry in regions), default=0)
    numbers = f"{number_of(len(regions), 'region')}, the fullest with {most}"
    numbers += f" of {number_of(summary.audited, 'sample')}"
    if summary.places.unknown:
        numbers += f", {summary.places.unknown} without a known place"
    return Verdict(
        "Are the samples spread over regions?",
        _look_if(most > ONE_REGION * summary.audited),
        numbers,
        f"{percent(ONE_REGION)} in one",
    )


def percent(share: float) -> str:
    """A share in words."""
    return f"{100 * share:.1f} %"


def _days(number: float) -> str:
    return number_of(int(number), "day")


def _look_if(condition: bool) -> str:
    """The verdict on something that is worth a look under a condition, else good."""
    if condition:
        return LOOK
    return GOOD


def _below(
    question: str,
    what: str,
    values: Mapping[str, float],
    *,
    limit: float,
    in_words: Callable[[float], str],
) -> Verdict:
    """All values stay under a limit.

    Args:
        question: the question of the verdict.
        what: what the values are.
        values: a value of each sensor.
        limit: the greatest good value.
        in_words: writes a value with its unit.
    """
    if not values:
        return Verdict(question, UNKNOWN, f"{what}: none", in_words(limit))
    listed = ", ".join(f"{name} {in_words(value)}" for name, value in values.items())
    above = any(value > limit for value in values.values())
    return Verdict(question, _look_if(above), f"{what}: {listed}", in_words(limit))
