"""The report's sections: each is its heading and its HTML, with captions in plain words."""

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from data.pages.page import Html, badge, heading, note, picture, table, text
from data.pages.region_map import outlines, region_map
from engine.report import figures, pictures
from engine.report.pictures import Maps
from engine.report.run_files import RunFiles
from engine.report.verdicts import Verdict, ends
from models.features import FUSED

VIEWS = (
    (True, True),
    (False, True),
    (True, False),
)  # (has hr, has a series): samples whose views are drawn
ROWS = 40  # of a table that might grow
ANSWERS = {True: badge("good", "\u2713 ok"), False: badge("wrong", "\u2717 look here"), None: None}


def sections(
    run: RunFiles,
    answers: Sequence[Verdict],
    evaluation: dict,
    trained: list[Maps],
    first: list[Maps],
) -> list[tuple[str, Html]]:
    """All sections, in order. ``trained`` and ``first`` are feature maps after and before training."""
    entries = [run.dataset.entry(sample) for sample in range(len(run.dataset))]
    return [
        ("Summary", _summary(run, answers, entries)),
        ("Losses", _losses(run)),
        ("Schedules", _schedules(run)),
        ("Gradient and speed", _speed(run)),
        ("Teacher", _teacher(run)),
        ("Experts", _experts(run)),
        ("Training views", _views(run)),
        ("Features as colours", _features(run, trained, first)),
        ("Where the data lies", _map(run, entries)),
        ("Evaluation", _evaluation(evaluation)),
        ("Replaced samples and skipped steps", _trouble(run)),
    ]


def _summary(run: RunFiles, answers: Sequence[Verdict], entries: list[dict]) -> Html:
    """Verdicts, what ran, on what data, where the losses ended."""
    environment, dataset = run.environment, run.dataset
    packages = ", ".join(
        f"{name} {version}" for name, version in environment["packages"].items() if version
    )
    seconds = figures.series(run.records, "seconds")
    what = [
        ("run folder", run.folder.resolve()),
        (
            "steps",
            f"{run.state['step']} of {run.config.settings.schedule.steps}, {run.batch_size} samples each",
        ),
        ("time in steps", _duration(float(np.nansum(seconds)))),
        ("ranks", f"{run.state['world_size']}, experts spread over {run.state['ep_size']}"),
        ("seed", str(run.config.settings.seed)),
        ("command", Html(f"<code>{text(' '.join(environment['command']))}</code>")),
        ("git revision", environment["git"] or "not a checkout"),
        ("packages", f"Python {environment['python']}, {packages}"),
        ("machine", environment["host"]),
    ]
    modalities = Counter(name for entry in entries for name in entry["modalities"])
    labelled = sum("labels" in entry["members"] for entry in entries)
    data = [
        ("folder", dataset.path),
        ("fingerprint", dataset.fingerprint),
        (
            "samples",
            f"{len(dataset)}: "
            + ", ".join(f"{count} with {name}" for name, count in modalities.items())
            + f", {labelled} with labels",
        ),
        ("places", f"{len(dataset.regions)} regions of 65,536 m"),
    ]
    credits = [
        (credit["samples"], credit["licence"], credit["attribution"])
        for credit in dataset.attribution
    ]
    return Html(
        table(
            ("verdict", "question", "numbers"),
            [(ANSWERS[a.good], a.question, a.numbers) for a in answers],
        )
        + heading("Run")
        + table(None, what)
        + heading("Loss terms")
        + note(
            f"Means over the first and the last {figures.tenth(len(run.records))} steps, of those that could "
            "measure the term. The total is weighted, the terms are not."
        )
        + _terms(run)
        + heading("Data")
        + table(None, data)
        + heading("Licences")
        + table(("samples", "licence", "attribution"), credits, numbers=(0,))
    )


def _terms(run: RunFiles) -> Html:
    """Every term at both ends of the run."""
    names = [name for name in run.records[-1] if name.split("/")[0] == "loss"]
    values = [(name, ends(figures.measured(run.records, name))) for name in names]
    rows = [
        (
            "total" if name == "loss" else name[5:],
            *map(_decimals, (start, end)),
            None
            if math.isnan(start + end) or not start
            else f"{100 * (end - start) / abs(start):+.1f} %",
        )
        for name, (start, end) in values
    ]
    return table(("term", "first", "last", "change"), rows, numbers=(1, 2, 3))


def _decimals(value: float | None) -> str | None:
    """Three decimals for a table; nothing for what could not be measured."""
    return None if value is None or math.isnan(value) else f"{value:.3f}"


def _losses(run: RunFiles) -> Html:
    k = run.config.settings.model.head.prototypes
    moe = run.config.settings.model.moe
    balance = (
        f"The balance term (moe_balance) is best near {len(moe.blocks)}, 1 a mixture layer, and must not grow. "
        if moe
        else ""
    )
    return picture(
        figures.losses(run.records, k),
        Html(
            "<b>How to read it.</b> One panel a loss term, unweighted but for the total. Faint: every step; strong: a "
            "running mean. Gaps are steps whose batch had nothing to measure the term on, such as no image of that sensor; "
            "the total leaves out steps that lack a term. Dashed: "
            f"log K = {math.log(k):.2f}, what a student that knows nothing reaches, and where a teacher that says nothing "
            "puts it. <b>Healthy:</b> the contrastive terms fall below the dashed line and go on falling, slowly; they do "
            "not reach 0, because they hold the entropy of the teacher's targets too. The text alignment (ita) falls as "
            f"soon as there are labels. {balance}"
            "<b>Look closer</b> if a curve settles on the dashed line (nothing is learnt from it: see the teacher's "
            "entropies), drops to 0 (collapse), or jumps."
        ),
        "Loss terms over steps",
    )


def _schedules(run: RunFiles) -> Html:
    return picture(
        figures.schedules(run.records),
        Html(
            "<b>How to read it.</b> What the step alone decides: the learning rate rises over the warm-up and falls along "
            "a cosine; weight decay and teacher momentum move along cosines, the teacher's temperature rises to its final "
            "value. <b>Healthy:</b> smooth curves without steps or kinks other than the end of a warm-up, also where a "
            "run was interrupted and continued."
        ),
        "Schedules over steps",
    )


def _speed(run: RunFiles) -> Html:
    clipping = run.config.deepspeed.get("gradient_clipping")
    clipped = f" It is cut to {clipping:g} before the update." if clipping else ""
    return picture(
        figures.speed(run.records),
        Html(
            f"<b>How to read it.</b> Left: length of the gradient over all weights, logarithmic.{clipped} "
            "Middle: samples a second over all ranks. Right: share of a step in which the model waited for data. "
            "<b>Healthy:</b> the gradient settles after the warm-up, without rare peaks far above the rest; the speed is "
            "level (a slow first step is normal); the wait stays under a few per cent, else raise "
            "<code>skysense.data.workers</code>."
        ),
        "Gradient norm, speed and data wait over steps",
    )


def _teacher(run: RunFiles) -> Html:
    k = run.config.settings.model.head.prototypes
    if not figures.heads(run.records):
        return note("The run recorded no teacher figures.")
    return picture(
        figures.teacher(run.records, k),
        Html(
            f"<b>How to read it.</b> Each head of the teacher shares every row (a pixel, an object, an image, a query) "
            f"among K = {k} prototypes; log K = {math.log(k):.2f} is the greatest entropy. Left: how undecided it is on "
            "one row, 1 = it says nothing, 0 = it names one prototype. Middle: how evenly all rows together use the "
            "prototypes; 0 = every row gets the same one, which is collapse. Right: how many prototypes are some row's "
            "first choice. "
            "<b>Healthy:</b> left clearly under 1 and over 0, falling while the temperature is low; middle near 1; right "
            "not shrinking to 1 (it cannot exceed the number of rows in a batch, so the image level is low with small "
            "batches). Sinkhorn-Knopp spreads few rows over all prototypes: a head that sees a single row in a step stands "
            "at 1 on the left, whatever it has learnt."
        ),
        "Teacher entropies and prototype use over steps",
    )


def _experts(run: RunFiles) -> Html:
    if "expert_load" not in run.records[-1]:
        return note("The model has no mixture of experts.")
    modalities, experts = (
        list(run.config.settings.model.modalities),
        run.config.settings.model.moe.experts,
    )
    last = figures.tenth(len(run.records))
    return Html(
        picture(
            figures.expert_shares(run.records, modalities),
            Html(
                f"<b>How to read it.</b> Where the tokens of each modality went in the last {last} steps: each row sums to "
                f"100 %, an even spread would be {100 / experts:.1f} % everywhere. <b>Healthy:</b> no expert takes nearly "
                "everything from all modalities, none is left without work; modalities may well differ, that is what experts "
                "are for."
            ),
            "Expert shares by modality in the last steps",
        )
        + picture(
            figures.expert_history(run.records, modalities),
            Html(
                "<b>How to read it.</b> The same shares over time: a row an expert, a column a step (or several). White: "
                "no token of the modality. <b>Healthy:</b> lively at the start, then steadier; one dark row while all "
                "others fade means that the gate has collapsed: raise <code>skysense.loss.moe_balance</code>."
            ),
            "Expert shares by modality over steps",
        )
    )


def _views(run: RunFiles) -> Html:
    settings = run.config.settings
    chosen = pictures.pick(run.dataset, settings.seed, run.batch_size, VIEWS)
    shown = "".join(
        picture(
            pictures.views(run.dataset, settings.data, settings.seed, one, settings.model),
            "",
            f"Views of {run.dataset.entry(one.sample)['key']}",
        )
        for one in chosen
    )
    return Html(
        note(
            Html(
                "The first sample of each kind in the run's own order (optical and series, series only, optical only, as far "
                "as the data has them), cut by the run's own seed: these are the pixels that training saw. "
                "<b>Above left:</b> the whole tile with the views, solid: global, dashed: local; the dot marks the corner that "
                "is shown top left, so it tells how a view was mirrored and turned. <b>Above right:</b> the views of every "
                "modality; the optical ones also change in colour, blur and solarisation. Pale violet: no valid data. "
                "<b>Below:</b> which cells of the fusion grid meet in the pixel loss; dots of one colour, joined by a line, "
                "are the same ground in the student's and the teacher's view; a cross meets nothing, as the place lies outside "
                "the teacher's view or has no valid data. Series are stretched in contrast; SAR shows VV, VH and their "
                "difference. "
                "<b>Healthy:</b> joined dots lie on the same thing, and all modalities of one view show the same place."
            )
        )
        + shown
    )


def _features(run: RunFiles, trained: list[Maps], first: list[Maps]) -> Html:
    names = list(run.config.settings.model.modalities)
    columns = [(f"{names[0]}, stage 3", trained, f"{names[0]}, stage 3")]
    columns += [(f"{name}, stage 4", trained, f"{name}, stage 4") for name in names]
    columns += [(FUSED, trained, FUSED), ("fused, untrained", first, FUSED)]
    return picture(
        pictures.feature_pictures(trained, columns),
        Html(
            "<b>How to read it.</b> Each square is a map of the teacher's features: its three strongest directions of "
            "variation (principal components), taken over all samples of a column together, become red, green and blue. "
            "Equal colours mean alike features, the colours themselves mean nothing. Pale violet: no data. The tiles are "
            f"shown at {2 * run.config.settings.data.views.global_cells} cells a side, twice the global views', for a "
            "finer picture. <b>Healthy:</b> colours follow things on the ground (roads, fields, woods) and agree between "
            "tiles; "
            "after training more so than in the last column, the same model before its first step. <b>Look closer</b> if "
            "all maps show the same pattern whatever the tile: then the features tell the position, not the content."
        ),
        "Principal components of the teacher's features",
    )


def _map(run: RunFiles, entries: list[dict]) -> Html:
    regions = run.dataset.regions
    held = Counter(run.dataset.region(sample) for sample in range(len(run.dataset)))
    counts = [held[region] for region in range(len(regions))]
    places = np.array([(entry["lon"], entry["lat"]) for entry in entries])
    return picture(
        region_map(regions.cells, counts, places),
        Html(
            "<b>How to read it.</b> Each region is a cell of 65,536 m on an equal-area grid; the geo-context keeps "
            "prototypes of its own for every region that holds data. Above: the world, larger squares for more samples "
            "(drawn without a network). Below: the boxes of the map enlarged, each region with its number of samples, each "
            "sample a dot. <b>Healthy:</b> the samples lie where you expect them; several a region, as prototypes of a "
            f"region with one sample only remember that sample. {text(outlines())}"
        ),
        "Map of regions and samples",
    )


def _evaluation(evaluation: dict) -> Html:
    trained, first = evaluation["teacher"], evaluation["untrained"]
    ranks = [
        (
            name,
            trained["samples_of"][name],
            _decimals(value),
            _decimals(first["effective_rank"].get(name)),
        )
        for name, value in trained["effective_rank"].items()
    ]
    found = heading("Effective rank") + note(
        Html(
            f"Teacher of {evaluation['checkpoint']}, {trained['samples']} whole tiles without augmentation, beside the "
            "same model with its first weights. The effective rank is the number of directions in which the samples' mean "
            "features differ (exp of the entropy of the singular values). 1 is collapse; at most one less than there are "
            "samples. <b>Healthy:</b> well above 1; it may fall below the untrained one, as training sorts out what "
            "matters, but not towards 1."
        )
    )
    found += table(("feature", "samples", "trained", "untrained"), ranks, numbers=(1, 2, 3))
    found += heading("k-NN on land-cover cells")
    if "knn" not in trained:
        return Html(
            found
            + note(
                f"Not measured: {trained['labelled_tiles']} tiles have labels, it takes at least 2."
            )
        )
    rows = [
        (
            f"{k} neighbours",
            *(
                None if figures["knn"].get(k) is None else f"{100 * figures['knn'][k]:.1f} %"
                for figures in (trained, first)
            ),
        )
        for k in trained["knn"]
    ]
    rows.append(("always the commonest class", *[f"{100 * trained['commonest_class']:.1f} %"] * 2))
    return Html(
        found
        + note(
            Html(
                f"{trained['labelled_cells']} labelled cells of the fusion grid on {trained['labelled_tiles']} tiles: each "
                "gets the class of the most similar cells <b>of other tiles</b>, no training on top. <b>Healthy:</b> above the "
                "untrained model and above the commonest class. With few tiles or neighbouring ones this is a coarse measure: "
                "differences of a few cells mean nothing."
            )
        )
        + table(("accuracy", "trained", "untrained"), rows, numbers=(1, 2))
    )


def _trouble(run: RunFiles) -> Html:
    skipped = [record["step"] for record in run.records if not record["applied"]]
    found = note(
        f"Skipped updates: {', '.join(map(str, skipped[:ROWS])) or 'none'}"
        + (f" and {len(skipped) - ROWS} more" if len(skipped) > ROWS else "")
        + ". A rare one is the guard at work, many in a row are a failing run."
    )
    faults = Counter()
    for record in run.faults:
        faults.update({kind: count for kind, count in record.items() if kind != "step"})
    overcome = ", ".join(f"{count} x {kind}" for kind, count in sorted(faults.items())) or "none"
    found += note(
        f"Faults of reading that another try or a substitute overcame, all ranks: {overcome}."
    )
    if not run.quarantine:
        return Html(found + note("Quarantined samples: none. Every sample could be read."))
    rows = [
        (record["step"], record["key"], record["reason"], record["substitute"])
        for record in run.quarantine[:ROWS]
    ]
    return Html(
        found
        + note(f"{len(run.quarantine)} records in the quarantine files, the first {len(rows)}:")
        + table(("step", "sample", "reason", "replaced by"), rows, numbers=(0,))
    )


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"
