"""The sections of audit.html, in order, each from the plain data of the summary."""

import numpy as np
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from data.audit import charts
from data.audit.verdicts import MEAN_OFF, STD_RATIO, off
from data.pages.page import Html, badge, heading, note, picture, swatch, table
from data.pages.region_map import outlines, region_map
from data.pages.style import class_colour

FAILURES = 500  # lines of the page; audit.json has all
SHOWN = {"wrong": "wrong", "look": "worth a look", "good": "good", "unknown": "cannot tell"}


def sections(found: dict, shifted: Figure | None) -> list[tuple[str, Html]]:
    """(heading, HTML) of a summary. ``shifted``: the picture of displaced images, if there are any."""
    parts = [
        ("Verdicts", verdicts(found)),
        ("What there is", counts(found)),
        ("Places", places(found)),
        ("Dates and invalid pixels", dates(found)),
        ("Values of the bands", bands(found)),
        ("Classes", classes(found["classes"])),
        ("High resolution against Sentinel-2", registration(found["registration"], shifted)),
        ("Duplicates", duplicates(found["duplicates"])),
    ]
    if found["failures"]:
        parts.insert(1, ("Damaged members", failures(found)))
    return parts


def verdicts(found: dict) -> Html:
    """The questions, the worst answers first."""
    return table(
        ("question", "answer", "numbers", "limit"),
        [
            (v["question"], badge(v["verdict"], SHOWN[v["verdict"]]), v["numbers"], v["limit"])
            for v in found["verdicts"]
        ],
    )


def failures(found: dict) -> Html:
    """What could not be read, a line each."""
    more = len(found["failures"]) - FAILURES
    return Html(
        table(
            ("shard", "sample", "field", "reason"),
            [(f["shard"], f["key"], f["field"], f["reason"]) for f in found["failures"][:FAILURES]],
        )
        + (note(f"{more} more are in audit.json.") if more > 0 else "")
    )


def counts(found: dict) -> Html:
    """Samples, bytes, sensors, sizes, licences."""
    c = found["counts"]
    audited = [
        ("samples of the dataset", found["samples"]),
        ("samples read", found["audited"]),
        ("of them corrupt", found["corrupt_samples"]),
        ("shards", c["shards"]),
        ("bytes of all shards", c["bytes_on_disk"]),
        ("bytes of the members read", sum(c["bytes"].values())),
    ]
    return Html(
        table(("", "number"), audited, numbers=[1])
        + table(
            ("sensors together", "samples"),
            [
                (" + ".join(entry["modalities"]) or "none", entry["samples"])
                for entry in c["combinations"]
            ],
            [1],
        )
        + table(
            ("member", "bytes", "share"),
            [
                (name, size, percent(size / sum(c["bytes"].values())))
                for name, size in c["bytes"].items()
            ],
            [1, 2],
        )
        + table(("cells a side", "samples"), c["cells"].items(), [0, 1])
        + table(
            ("licence", "attribution", "samples"),
            [
                (entry["licence"], entry["attribution"], entry["samples"])
                for entry in c["attribution"]
            ],
            [2],
        )
    )


def places(found: dict) -> Html:
    """The map."""
    regions = found["places"]["regions"]
    if not regions:
        return note("No sample has a readable place.")
    drawn = region_map(
        [region["cell"] for region in regions],
        [region["samples"] for region in regions],
        np.array(found["places"]["points"]).reshape(-1, 2),
    )
    return Html(
        picture(
            drawn,
            f"Red: regions of 65.5 km that hold samples, with their number. Dots: samples. "
            f"{outlines()}",
            "Map of regions and samples",
        )
        + note(
            f"{len(regions)} of the manifest's {found['places']['regions_in_manifest']} regions hold the "
            f"samples read. The fullest:"
        )
        + table(
            ("region", "samples"),
            [
                (entry["region"], entry["samples"])
                for entry in sorted(regions, key=lambda e: -e["samples"])[:10]
            ],
            [0, 1],
        )
    )


def dates(found: dict) -> Html:
    """Frames, gaps, invalid cells."""
    series = found["series"]
    if not series:
        return note("No sample has a sensor.")
    rows = [
        (
            name,
            s["samples"],
            s["frames"],
            s["usable_frames"],
            s["median_frames"],
            s["gap_median_days"],
            s["gap_longest_days"],
            percent(s["invalid_share"]),
            ", ".join(map(str, s["years"])),
        )
        for name, s in series.items()
    ]
    parts = [
        table(
            (
                "sensor",
                "samples",
                "frames",
                "usable frames",
                "median frames a sample",
                "median gap, days",
                "longest gap, days",
                "invalid cells",
                "years",
            ),
            rows,
            range(1, 8),
        ),
        picture(
            charts.frames(series),
            "Frames of a sample, frames by month of the year, and the share of 10 m "
            "cells without a valid observation: clouds, no data, an edge.",
            "Frames and invalid cells by sensor",
        ),
    ]
    for name, s in series.items():
        few, gaps = s["fewest_valid"], s["longest_gaps"]
        parts.append(heading(f"{name}: samples with fewest valid cells, and with the longest gaps"))
        parts.append(
            table(
                ("sample", "valid cells", "sample", "gap, days"),
                [
                    (
                        few[i]["key"] if i < len(few) else "",
                        percent(few[i]["valid_share"]) if i < len(few) else "",
                        gaps[i]["key"] if i < len(gaps) else "",
                        gaps[i]["days"] if i < len(gaps) else "",
                    )
                    for i in range(min(5, max(len(few), len(gaps))))
                ],
                [1, 3],
            )
        )
    return Html("".join(parts))


def bands(found: dict) -> Html:
    """Statistics of every band beside the registry's."""
    parts = [
        note(
            f"Measured over all valid pixels of the samples read, in float64. Marked: a mean more than "
            f"{MEAN_OFF:g} registry deviations from the registry's, a deviation more than {STD_RATIO:g} times "
            f"larger or smaller."
        )
    ]
    for name, table_of in found["bands"].items():
        parts.append(heading(f"{name}: {charts.unit(name)}"))
        parts.append(
            picture(
                charts.histograms(name, table_of),
                "Grey: measured mean and one deviation. Ochre: those of the registry.",
                f"Histograms of the bands of {name}",
            )
        )
        parts.append(
            table(
                (
                    "band",
                    "pixels",
                    "mean",
                    "registry",
                    "std",
                    "registry",
                    "1 %",
                    "50 %",
                    "99 %",
                    "least",
                    "there",
                    "greatest",
                    "there",
                    "",
                ),
                [
                    (
                        b["band"],
                        b["pixels"],
                        b["mean"],
                        float(b["registry_mean"]),
                        b["std"],
                        float(b["registry_std"]),
                        *(b["percentiles"][p] for p in (1, 50, 99)),
                        b["low"],
                        percent(b["share_at_low"]),
                        b["high"],
                        percent(b["share_at_high"]),
                        badge("look", f"{off(b)} off") if off(b) else "",
                    )
                    for b in table_of
                ],
                range(1, 13),
            )
        )
    return Html("".join(parts))


def classes(found: dict) -> Html:
    """Shares of the classes, those seen most first."""
    seen = sorted(
        (entry for entry in found["table"] if entry["pixels"]), key=lambda entry: -entry["pixels"]
    )
    never = [entry["name"] for entry in found["table"] if not entry["pixels"]]
    labelled = percent(found["labelled_share"]) or "none"
    return Html(
        note(
            f"{found['samples_with_labels']} samples have labels; {labelled} of their pixels bear a class."
        )
        + table(
            ("", "class", "name", "pixels", "share of the labelled", "samples"),
            [
                (
                    swatch(to_hex(class_colour(e["index"]))),
                    e["index"],
                    e["name"],
                    e["pixels"],
                    percent(e["share"]),
                    e["samples"],
                )
                for e in seen
            ],
            [1, 3, 4, 5],
        )
        + note(f"Never seen: {', '.join(never) or 'none'}.")
    )


def registration(found: dict, shifted: Figure | None) -> Html:
    """Shifts between the high-resolution images and Sentinel-2."""
    parts = [
        note(
            "The image is averaged to 10 m at every quarter of a cell and compared with the Sentinel-2 frame of "
            "most valid pixels; the shift is where the correlation is highest. Without one clear peak there is "
            "no answer."
        ),
        table(
            ("", "samples"),
            [
                ("judged", found["judged"]),
                (f"beyond {found['limit_cells']:g} cell", found["beyond_limit"]),
                *((f"cannot tell: {reason}", n) for reason, n in found["cannot_tell"].items()),
            ],
            [1],
        ),
    ]
    if found["worst"]:
        parts.append(
            table(
                (
                    "longest shifts",
                    "cells",
                    "down",
                    "right",
                    "correlation as stored",
                    "at best",
                    "lead",
                ),
                [
                    (
                        w["key"],
                        w["distance_cells"],
                        w["down_cells"],
                        w["right_cells"],
                        w["correlation_as_stored"],
                        w["correlation_at_best"],
                        w["lead"],
                    )
                    for w in found["worst"]
                ],
                range(1, 7),
            )
        )
    if found["shared"]:
        parts += [
            note(
                "Tiles too small to be judged alone, all of one source together: a shift that they share shows "
                "in the mean of their correlations."
            ),
            table(
                (
                    "small tiles of",
                    "tiles",
                    "cells",
                    "down",
                    "right",
                    "correlation as stored",
                    "at best",
                    "standard errors",
                    "cannot tell",
                ),
                [
                    (
                        s["attribution"],
                        s["tiles"],
                        s["distance_cells"],
                        s["down_cells"],
                        s["right_cells"],
                        s["correlation_as_stored"],
                        s["correlation_at_best"],
                        s["t"],
                        s["reason"],
                    )
                    for s in found["shared"]
                ],
                range(1, 8),
            ),
        ]
    if shifted is not None:
        parts.append(
            picture(
                shifted,
                "Longest shifts. Red: edges of the high-resolution image over Sentinel-2, as "
                "stored and moved back by the shift found. If the right picture fits better, "
                "the image is displaced.",
                "High resolution over Sentinel-2",
            )
        )
    return Html("".join(parts))


def duplicates(found: dict) -> Html:
    """Pairs of samples, with the first of each kind."""
    titles = {
        "same_key": "same key",
        "same_bytes": "same bytes in every member",
        "same_picture": "same picture within a cell",
        "overlapping": "footprints overlap (information)",
    }
    parts = [
        table(("", "pairs"), [(title, found[name]["pairs"]) for name, title in titles.items()], [1])
    ]
    for name, title in titles.items():
        if found[name]["first"]:
            parts += [
                heading(f"{title}: the first pairs"),
                table(("sample", "sample"), found[name]["first"]),
            ]
    return Html("".join(parts))


def percent(share: float | None) -> str | None:
    """A share for a table, None of nothing."""
    return None if share is None else f"{100 * share:.2f} %"
