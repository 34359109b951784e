"""The class table as a page of documentation, written from the tables that the code uses."""

from collections.abc import Iterable

from data.osm.tag_tables import AREAS, FINER, GONE, HIDING, LANE, LOCATIONS, SURFACES, WAYS
from data.osm.tags import MAX_WIDTH
from data.tiles.classes import FLAIR, LAYERS, WORLDCEREAL_CT, WORLDCEREAL_LC, class_table, draw_rank


def _code(words: Iterable[str]) -> str:
    """Words in the type of code, with commas."""
    return ", ".join(f"`{word}`" for word in words)


HEAD = f"""# Classes

Written by `skysense classes --out docs/classes.md` from `data/tiles/classes.py` and
`data/osm/tag_tables.py`.

The index is the position in the table, so classes are only appended. A code or tag without an entry
stays unlabelled (255): a wrong label costs more than a missing one. The prompt is what the text
encoder reads.

## How shapes are drawn

- Order: {", ".join(LAYERS)}.
- In a layer: by the tag `layer` (a bridge without it is on 1), then areas before lines; larger
  areas before smaller ones, narrower lines before wider ones. The order in the file plays no part.
- A pixel of 1.25 m belongs to what holds its centre. A line is a band with round ends, at least one
  pixel wide.
- A line's width in metres: the tag `width` ("3.5", "3.5 m", "350 cm", "12 ft", "12'6\\"") up to
  {MAX_WIDTH:.0f} m; else by `lanes`, {LANE} m for each that differs from what the table's width is
  for; else the table's.
- A closed line is drawn along the line, as the area inside it, or both: as its tags say. With
  `area=yes` it is an area. A polygon with a line's tag is that line's surface.
- Several tags on one object: the class drawn last wins; in one layer the later line of `AREAS` in
  `data/osm/tag_tables.py`.
- Not drawn: points; what is hidden ({_code(HIDING)} with any value but no;
  `location` {", ".join(LOCATIONS)}); what is not there (with yes:
  {_code(GONE[:4])},
  {_code(GONE[4:])}); water that is
  `intermittent` or `seasonal`. The sea has no polygon in OpenStreetMap and stays unlabelled.

## Table

Lines have their width in metres behind them, and in brackets the lanes that it is for.

| index | class | prompt | layer | OpenStreetMap areas | OpenStreetMap lines | FLAIR | WorldCereal |
|---|---|---|---|---|---|---|---|
"""


def page() -> str:
    """The page in Markdown."""
    return HEAD + _class_rows() + _finer_table()


def _class_rows() -> str:
    """The rows of the first table, one a class."""
    layers = list(LAYERS)
    lines = []
    for row in class_table():
        name = row["name"]
        cells = [
            str(row["index"]),
            name,
            row["text"],
            layers[draw_rank(row["index"])],
            _areas(name),
            _lines(name),
            _legend_codes(FLAIR, name),
            _worldcereal_codes(name),
        ]
        lines.append("| " + " | ".join(cells) + " |\n")
    return "".join(lines)


def _areas(name: str) -> str:
    """The tags of areas that are drawn as a class."""
    tags = [f"`{key}={value}`" for (key, value), drawn in AREAS.items() if drawn == name]
    if name == "building":
        barred = []
        for (key, value), drawn in AREAS.items():
            if key == "building" and drawn is None:
                barred.append(value)
        tags[0] += f" (not {', '.join(barred)})"
    return ", ".join(tags)


def _lines(name: str) -> str:
    """The tags of lines that are drawn as a class, with width and lanes."""
    tags = []
    for (key, value), way in WAYS.items():
        if way.name != name:
            continue
        text = f"`{key}={value}` {way.width:g}"
        if way.lanes:
            text += f" ({way.lanes})"
        tags.append(text)
    return ", ".join(tags)


def _legend_codes(legend: dict[int, str], name: str) -> str:
    """The codes of a legend that are drawn as a class."""
    return ", ".join(str(code) for code, drawn in legend.items() if drawn == name)


def _worldcereal_codes(name: str) -> str:
    """The codes of WorldCereal's land cover (LC) and crop types (CT)."""
    texts = []
    for title, legend in (("LC", WORLDCEREAL_LC), ("CT", WORLDCEREAL_CT)):
        codes = _legend_codes(legend, name)
        if codes:
            texts.append(f"{title} {codes}")
    return ", ".join(texts)


def _finer_table() -> str:
    """The second table: tags that make one class of another."""
    lines = ["", "## Tags that say more", "", "| of | with | becomes |", "|---|---|---|"]
    for (coarse, key, values), fine in FINER.items():
        lines.append(f"| {coarse} | `{key}=` {', '.join(values)} | {fine or 'not drawn'} |")
    for value, name in SURFACES.items():
        lines.append(f"| a polygon of `highway={value}` | | {name} |")
    return "\n".join(lines) + "\n"
