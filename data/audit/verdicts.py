"""What the figures of an audit say: a few plain questions, each answered with its numbers and the
limit used."""

from collections.abc import Sequence
from dataclasses import dataclass

from data.audit.duplicates import SAME_LOOKS, SAME_PLACE
from data.audit.fingerprint import BITS

WRONG, LOOK, GOOD, UNKNOWN = "wrong", "look", "good", "unknown"
# Limits. They say where a look is worth its time, not what a dataset must be.
MEAN_OFF = 0.25  # of a registry deviation, between the measured and the registry's mean of a band
STD_RATIO = 1.25  # between the measured and the registry's deviation, either way
CLIPPED = 0.01  # share of a band's pixels at its least or greatest value
INVALID = 0.5  # share of invalid cells of a sensor
UNUSABLE = 0.05  # share of frames without a valid pixel
GAP = 120  # days between neighbouring frames of a sample
NAMED = 8  # classes that a verdict names
ONE_REGION = 0.5  # share of the samples in one region


@dataclass(frozen=True)
class Verdict:
    """One question and its answer: wrong, look, good, or unknown where there was nothing to judge."""

    question: str
    verdict: str
    numbers: str
    limit: str


def verdicts(found: dict) -> list[Verdict]:
    """All verdicts on a summary, the worst first."""
    answers = [
        whole(found),
        licences(found["counts"]["attribution"]),
        *twice(found["duplicates"]),
        registered(found["registration"]),
        statistics(found["bands"]),
        clipped(found["bands"]),
        *observed(found["series"]),
        classes(found["classes"]),
        spread(found),
    ]
    return sorted(answers, key=lambda answer: (WRONG, LOOK, GOOD, UNKNOWN).index(answer.verdict))


def whole(found: dict) -> Verdict:
    """Every member of every sample can be read and decoded."""
    return Verdict(
        "Is every member whole?",
        WRONG if found["failures"] else GOOD,
        f"{found['corrupt_samples']} of {found['audited']} samples with {len(found['failures'])} failures",
        "none",
    )


def licences(credits: Sequence[dict]) -> Verdict:
    """Every sample names its licence and whom to credit."""
    without = sum(
        entry["samples"] for entry in credits if not (entry["licence"] and entry["attribution"])
    )
    return Verdict(
        "Does every sample name its licence and attribution?",
        LOOK if without else GOOD,
        f"{without} samples without, {len(credits)} different ones",
        "none without",
    )


def twice(pairs: dict) -> list[Verdict]:
    """No sample is there twice."""
    asked = (
        ("same_key", "Is every key there once?", WRONG, "pairs of samples with one key"),
        (
            "same_bytes",
            "Are all samples different?",
            LOOK,
            "pairs with the same bytes in every member",
        ),
        (
            "same_picture",
            "Does no place show the same picture twice?",
            LOOK,
            f"pairs within {SAME_PLACE:g} cell whose picture hashes differ in at most {SAME_LOOKS} of {BITS} bits",
        ),
    )
    return [
        Verdict(
            question,
            bad if pairs[name]["pairs"] else GOOD,
            f"{pairs[name]['pairs']} {what}",
            "none",
        )
        for name, question, bad, what in asked
    ]


def registered(found: dict) -> Verdict:
    """The high-resolution images lie where Sentinel-2 says."""
    question, limit = "Does high resolution lie on Sentinel-2?", f"{found['limit_cells']:g} cell"
    silent = sum(found["cannot_tell"].values())
    shared = [
        source["distance_cells"]
        for source in found["shared"]
        if source["distance_cells"] is not None
    ]
    if not found["judged"] and not shared:
        return Verdict(
            question, UNKNOWN, f"cannot tell for any of {silent} samples with both", limit
        )
    far = sum(distance > found["limit_cells"] for distance in shared)
    parts = (
        [
            f"{found['beyond_limit']} of {found['judged']} samples beyond the limit, median shift "
            f"{found['median_cells']:.2f} cells"
        ]
        if found["judged"]
        else []
    )
    parts += [f"small tiles together: {far} of {len(shared)} sources beyond it"] if shared else []
    return Verdict(
        question,
        LOOK if found["beyond_limit"] or far else GOOD,
        f"{'; '.join(parts)}; alone {silent} samples cannot tell",
        limit,
    )


def statistics(sensors: dict) -> Verdict:
    """The registry's means and deviations are those of the data."""
    question = "Do the registry's statistics fit the pixels?"
    bands = [
        (f"{name} {band['band']}", off(band)) for name, table in sensors.items() for band in table
    ]
    wrong = [title for title, reason in bands if reason]
    limit = f"means {MEAN_OFF:g} registry std apart, std {STD_RATIO:g} times"
    if not bands:
        return Verdict(question, UNKNOWN, "no valid pixel", limit)
    return Verdict(
        question,
        LOOK if wrong else GOOD,
        f"{len(wrong)} of {len(bands)} bands off{': ' if wrong else ''}{', '.join(wrong)}",
        limit,
    )


def clipped(sensors: dict) -> Verdict:
    """No band is cut off: too dark after the correction of the atmosphere, or too bright for the
    detector."""
    found = [
        (
            band[f"share_at_{end}"],
            f"{name} {band['band']} {percent(band[f'share_at_{end}'])} at {band[end]:g}",
        )
        for name, table in sensors.items()
        for band in table
        for end in ("low", "high")
    ]
    many = [words for share, words in sorted(found, reverse=True) if share > CLIPPED]
    numbers = ", ".join(many) or f"most: {max(found)[1]}" if found else "no valid pixel"
    return Verdict(
        "Are values not clipped?",
        (LOOK if many else GOOD) if found else UNKNOWN,
        numbers,
        f"{percent(CLIPPED)} at one end",
    )


def off(band: dict) -> str:
    """Which statistics of a band are farther from the registry's than the tolerance: "mean", "std",
    both, or ""."""
    ratio = band["std"] / band["registry_std"]
    found = {
        "mean": abs(band["mean"] - band["registry_mean"]) > MEAN_OFF * band["registry_std"],
        "std": not 1 / STD_RATIO <= ratio <= STD_RATIO,
    }
    return " and ".join(name for name, far in found.items() if far)


def observed(sensors: dict) -> list[Verdict]:
    """Frames show the ground, and follow each other closely enough."""
    empty = {
        name: entry["invalid_share"]
        for name, entry in sensors.items()
        if entry["invalid_share"] is not None
    }
    idle = {name: 1 - entry["usable_frames"] / entry["frames"] for name, entry in sensors.items()}
    gaps = {
        name: entry["gap_longest_days"]
        for name, entry in sensors.items()
        if entry["gap_longest_days"] is not None
    }
    return [
        _below("Are most pixels valid?", empty, INVALID, "invalid cells", percent),
        _below("Can the frames be used?", idle, UNUSABLE, "frames without a valid pixel", percent),
        _below(
            "Do the frames follow closely?", gaps, GAP, "longest gap", lambda days: f"{days} days"
        ),
    ]


def classes(found: dict) -> Verdict:
    """Every class of the table is somewhere."""
    question = "Is every class seen?"
    unseen = [entry["name"] for entry in found["table"] if not entry["pixels"]]
    if not found["samples_with_labels"]:
        return Verdict(question, UNKNOWN, "no sample has labels", "all")
    return Verdict(
        question,
        LOOK if unseen else GOOD,
        f"{len(found['table']) - len(unseen)} of {len(found['table'])} seen"
        f"{'; never: ' if unseen else ''}{', '.join(unseen[:NAMED])}"
        f"{f' and {len(unseen) - NAMED} more' if len(unseen) > NAMED else ''}",
        "all",
    )


def spread(found: dict) -> Verdict:
    """The samples do not lie in one region."""
    most, placed = (
        max((entry["samples"] for entry in found["places"]["regions"]), default=0),
        found["audited"],
    )
    return Verdict(
        "Are the samples spread over regions?",
        LOOK if most > ONE_REGION * placed else GOOD,
        f"{len(found['places']['regions'])} regions, the fullest with {most} of {placed} samples",
        f"{percent(ONE_REGION)} in one",
    )


def percent(part: float) -> str:
    """A share in words."""
    return f"{100 * part:.1f} %"


def _below(question: str, values: dict, limit: float, what: str, words) -> Verdict:
    """All values stay under a limit."""
    above = any(value > limit for value in values.values())
    return Verdict(
        question,
        LOOK if above else GOOD if values else UNKNOWN,
        f"{what}: "
        + (", ".join(f"{name} {words(value)}" for name, value in values.items()) or "none"),
        words(limit),
    )
