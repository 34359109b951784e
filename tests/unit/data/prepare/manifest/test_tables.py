"""Tables as pandas, DuckDB, Spark and spreadsheets write them say what JSON lines say."""

import datetime
import decimal
import json
import zoneinfo

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data.errors import InputError
from data.prepare.contract.days import day_of_text
from data.prepare.manifest.read import read_manifest
from tests.unit.manifests import IMAGE, LINE, rows_of, write_csv, write_lines

AUCKLAND = zoneinfo.ZoneInfo("Pacific/Auckland")
NOON = datetime.datetime(2020, 5, 1, 12, 0, 0, 123456)
MORNING = datetime.datetime(2020, 5, 1, 8, tzinfo=AUCKLAND)


def image_table(**columns: pa.Array) -> pa.Table:
    """The row of one image, with other columns in the place of its own."""
    row = rows_of([LINE])[0]
    arrays = {name: pa.array([value]) for name, value in row.items()}
    return pa.table({**arrays, **columns})


def image_date(path, **columns: pa.Array) -> str:
    pq.write_table(image_table(**columns), path)
    (entry,) = read_manifest(path)
    return entry.readers[0].date


@pytest.mark.parametrize(
    "column, day",
    [
        (pa.array([NOON.date()], pa.date32()), "2020-05-01"),
        (pa.array([NOON.date()], pa.date64()), "2020-05-01"),
        (pa.array([NOON], pa.timestamp("us")), "2020-05-01"),
        (pa.array([1588334400123456789], pa.timestamp("ns")), "2020-05-01"),
        (pa.array([NOON], pa.timestamp("ns", "UTC")), "2020-05-01"),
        (pa.array([MORNING], pa.timestamp("s", "Pacific/Auckland")), "2020-04-30"),
        (pa.array([MORNING], pa.timestamp("us", "+12:00")), "2020-04-30"),
        (pa.array(["2020-05-01"], pa.large_string()), "2020-05-01"),
        (pa.array(["2020-05-01"]).dictionary_encode(), "2020-05-01"),
        (pa.array([b"2020-05-01"], pa.binary()), "2020-05-01"),
    ],
)  # fmt: skip
def test_dates_of_all_types_are_the_day_in_utc(tmp_path, column, day):
    assert day_of_text(image_date(tmp_path / "m.parquet", date=column)) == day


@pytest.mark.parametrize(
    "text, day",
    [
        ("2020-05-01T08:30:00+12:00", "2020-04-30"),
        ("2020-05-01 00:00:00", "2020-05-01"),
        ("2020-05-01T23:59:59.5Z", "2020-05-01"),
    ],
)
def test_times_as_text_are_the_day_in_utc_too(tmp_path, text, day):
    rows = [{**rows_of([LINE])[0], "date": text}]
    for path in (
        write_csv(tmp_path / "m.csv", rows),
        write_lines(tmp_path / "m.jsonl", [LINE | {"sources": [{**IMAGE, "date": text}]}]),
    ):
        (entry,) = read_manifest(path)
        assert day_of_text(entry.readers[0].date) == day
    rows[0]["date"] = "2020-05-01Tomorrow"
    with pytest.raises(InputError, match="date '2020-05-01Tomorrow': expected YYYY-MM-DD"):
        read_manifest(write_csv(tmp_path / "m.csv", rows))


def test_numbers_lists_and_objects_of_all_types(tmp_path):
    whole = {"lon": 9.0, "lat": 48.0, "cells": 8, "scale": 0.5, "offset": 1.0, "nodata": 7.0}
    expected = read_manifest(write_csv(tmp_path / "m.csv", [{**rows_of([LINE])[0], **whole}]))
    bands = ["R", "G", "B"]
    for columns in (
        {
            "bands": pa.array([bands], pa.list_(pa.string(), 3)),
            "cells": pa.array([8.0], pa.float64()),
            "lon": pa.array([9], pa.int8()),
            "scale": pa.array([0.5], pa.float32()),
            "nodata": pa.array([7], pa.uint16()),
        },
        {
            "bands": pa.array([bands], pa.large_list(pa.string())),
            "cells": pa.array([decimal.Decimal("8.00")]),
            "lat": pa.array([decimal.Decimal("48.000")]),
            "scale": pa.array([decimal.Decimal("0.5")]),
            "reader": pa.array(["geotiff_image"]).dictionary_encode(),
        },
        {"bands": pa.array(["R;G;B"]), "path": pa.array(["a.tif"], pa.large_string())},
    ):  # fmt: skip
        table = image_table(
            **{**{name: pa.array([value]) for name, value in whole.items()}, **columns}
        )
        pq.write_table(table, tmp_path / "m.parquet")
        assert read_manifest(tmp_path / "m.parquet") == expected
    # What pandas writes for an empty cell in a column of numbers.
    table = image_table(
        scale=pa.array([float("nan")]), masked=pa.array([None], pa.list_(pa.int64()))
    )
    pq.write_table(table, tmp_path / "m.parquet")
    assert read_manifest(tmp_path / "m.parquet") == read_manifest(
        write_lines(tmp_path / "m.jsonl", [LINE])
    )


def test_nulls_in_structs_and_maps_are_keys_that_are_not_given(tmp_path):
    """Rows of one column have the keys of all rows, as Parquet has them."""
    labels = [
        {"reader": "osm", "path": "a.gpkg", "tags": {"building": "yes"}},
        {"reader": "osm", "path": "b.gpkg", "tags": {"landuse": "forest"}},
        {"reader": "osm", "path": "c.gpkg"},
    ]
    expected = read_manifest(write_lines(tmp_path / "m.jsonl", [LINE | {"sources": labels}]))
    rows = rows_of([LINE | {"sources": labels}])
    names = ("key", "licence", "attribution", "reader", "path")
    common = {name: pa.array([row.get(name) for row in rows]) for name in names}
    tags = [row.get("tags") for row in rows]
    for column in (
        pa.array(tags, pa.struct({"building": pa.string(), "landuse": pa.string()})),
        pa.array([tag and list(tag.items()) for tag in tags], pa.map_(pa.string(), pa.string())),
        pa.array([tag and json.dumps(tag) for tag in tags]),
    ):  # fmt: skip
        pq.write_table(pa.table({**common, "tags": column}), tmp_path / "m.parquet")
        assert read_manifest(tmp_path / "m.parquet") == expected


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_csv_as_spreadsheets_write_it(tmp_path, separator, encoding, line_end):
    lines = [
        ["key", "licence", "attribution", "reader", "path", "modality", "bands", "date"],
        ["a", "CC0-1.0", "Müller & Söhne", "geotiff_image", "ä.tif", "hr", '"R;G;B"', "2020-05-01"],
        [""] * 8,
    ]
    text = line_end.join(separator.join(cells) for cells in lines) + line_end
    (tmp_path / "m.csv").write_bytes(text.encode(encoding))
    (entry,) = read_manifest(tmp_path / "m.csv")
    (reader,) = entry.readers
    assert entry.attribution == "Müller & Söhne" and reader.bands == ("R", "G", "B")
    assert reader.path == tmp_path / "ä.tif"


def test_what_a_table_cannot_mean_is_told_with_its_rows(tmp_path):
    rows = [{**rows_of([LINE])[0], "key": f"a{i}"} for i in range(3)]
    write_csv(tmp_path / "m.csv", [{**row, "scale": "half", "masked": "x"} for row in rows])
    with pytest.raises(InputError) as caught:
        read_manifest(tmp_path / "m.csv")
    assert str(caught.value).splitlines() == [
        f"{tmp_path / 'm.csv'}:{line}: 2 mistakes: (1) scale: expected a number, found 'half'; "
        "(2) masked: expected a whole number, found 'x'"
        for line in (2, 3, 4)
    ]
    write_csv(tmp_path / "m.csv", [{**row, "scal": 1, "pat": 2} for row in rows])
    with pytest.raises(InputError, match="unknown column 'scal' .did you mean 'scale'.*, 'pat'"):
        read_manifest(tmp_path / "m.csv")


def test_a_key_that_stands_twice_in_a_line_is_no_choice(tmp_path):
    line = json.dumps(LINE).replace('"date":', '"date": "2019-01-01", "date":')
    (tmp_path / "m.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"m.jsonl:1: not valid JSON .the keys \['date'\] stand"):
        read_manifest(tmp_path / "m.jsonl")
    assert IMAGE["date"] in line
