"""Whatever stands in a manifest, it gives entries or one clear line."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data.errors import InputError
from data.prepare.manifest.entry import Entry
from data.prepare.manifest.read import read_manifest
from tests.unit.manifests import (
    LINE,
    earth_search_item,
    rows_of,
    write_csv,
    write_lines,
    write_parquet,
)

JUNK = settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


KEYS = [
    "key",
    "sources",
    "licence",
    "attribution",
    "centre",
    "cells",
    "footprint",
    "reader",
    "path",
    "bands",
    "tags",
    "legend",
    "files",
    "scale",
    "masked",
    "lon",
    "lat",
    "type",
    "features",
    "properties",
    "geometry",
    "assets",
    "coordinates",
    "skysense",
    "datetime",
]


def read_or_refuse(*files: Path) -> None:
    """Entries, or lines that name the file."""
    try:
        entries = read_manifest(*files)
    except InputError as error:
        message = str(error)
    else:
        assert all(isinstance(entry, Entry) for entry in entries)
        return
    for line in message.splitlines():
        assert any(file.name in line for file in files)


@JUNK
@given(data=st.data(), suffix=st.sampled_from([".jsonl", ".csv", ".parquet", ".json", ".geojson"]))
def test_random_bytes_and_text(tmp_path, data, suffix):
    junk = data.draw(
        st.binary(max_size=200)
        | st.text(max_size=100).map(lambda text: text.encode("utf-8", "replace"))
        | values.map(lambda value: json.dumps(value).encode())
    )
    tiles = tmp_path / "tiles.csv"
    tiles.write_text("key,lon,lat,cells\na,9,48,8\n")
    (tmp_path / f"m{suffix}").write_bytes(junk)
    read_or_refuse(tmp_path / f"m{suffix}", *([tiles] if suffix in (".json", ".geojson") else []))


@JUNK
@given(data=st.data(), form=st.sampled_from(["lines", "csv", "stac", "tiles"]))
def test_one_value_replaced_by_any_other(tmp_path, data, form):
    """Walk into a sound manifest and replace, drop or add something anywhere."""
    point = {
        "properties": {"key": "a", "cells": 8},
        "geometry": {"type": "Point", "coordinates": [9, 48.5]},
    }
    sound = {
        "lines": LINE | {"centre": [9.0, 48.0], "cells": 8},
        "csv": rows_of([LINE])[0],
        "stac": {"type": "FeatureCollection", "features": [earth_search_item()]},
        "tiles": {"type": "FeatureCollection", "features": [point]},
    }
    broken = json.loads(json.dumps(sound[form]))
    at = broken
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = data.draw(st.sampled_from(keys)) if keys else None
        if key is None or not isinstance(at[key], dict | list) or data.draw(st.booleans()):
            break
        at = at[key]
    change = data.draw(st.sampled_from(["replace", "drop", "add"]))
    if change == "replace" and key is not None:
        at[key] = data.draw(values)
    elif change == "drop" and key is not None:
        del at[key]
    elif isinstance(at, dict):
        at[data.draw(st.sampled_from(KEYS) | st.text(max_size=6))] = data.draw(values)
    if form == "lines":
        (tmp_path / "m.jsonl").write_text(json.dumps(broken))
        read_or_refuse(tmp_path / "m.jsonl")
    elif form == "csv":
        read_or_refuse(write_csv(tmp_path / "m.csv", [broken or {"key": 1}]))
    else:
        both = {**sound, form: broken}
        (tmp_path / "items.json").write_text(json.dumps(both["stac"]))
        (tmp_path / "tiles.geojson").write_text(json.dumps(both["tiles"]))
        read_or_refuse(tmp_path / "items.json", tmp_path / "tiles.geojson")


SAR = {"VV": "a", "VH": "b"}
SOURCES = [
    {"reader": "geotiff_bands", "files": SAR, "modality": "sar", "date": "2020-05-01"},
    {"reader": "geotiff_labels", "path": "a.tif", "legend": {"1": "water"}},
    {"reader": "sentinel2_safe", "path": "a.SAFE"},
    {"reader": "netcdf_cube", "path": "a.nc", "modality": "sar", "bands": SAR, "crs": "EPSG:3035"},
    {"reader": "web_tiles", "paths": ["a-1-1-19.png"], "date": "2020-05-01"},
    {"reader": "osm", "path": "a.gpkg", "tags": {"building": "yes"}, "layers": ["a"]},
]  # fmt: skip


@JUNK
@given(data=st.data(), source=st.sampled_from(SOURCES))
def test_any_value_for_any_key_of_any_reader(tmp_path, data, source):
    """One key has any value, or one inside its value has."""
    broken = json.loads(json.dumps(source))
    key = data.draw(st.sampled_from(sorted(broken)))
    if isinstance(broken[key], dict) and data.draw(st.booleans()):
        more = st.dictionaries(st.text(max_size=6), values, min_size=1, max_size=2)
        broken[key] |= data.draw(more)
    else:
        broken[key] = data.draw(values)
    read_or_refuse(write_lines(tmp_path / "m.jsonl", [LINE | {"sources": [broken]}]))


@JUNK
@given(data=st.data())
def test_parquet_with_any_columns_and_types(tmp_path, data):
    kinds = {
        "text": pa.string(),
        "whole": pa.int64(),
        "real": pa.float64(),
        "bytes": pa.binary(),
        "list": pa.list_(pa.string()),
        "bool": pa.bool_(),
        "struct": pa.struct([("a", pa.string())]),
    }
    some = {
        "text": st.text(max_size=5),
        "whole": st.integers(-(2**63), 2**63 - 1),
        "real": st.floats(),
        "bytes": st.binary(max_size=9),
        "list": st.lists(st.text(max_size=3), max_size=2),
        "bool": st.booleans(),
        "struct": st.fixed_dictionaries({"a": st.text(max_size=3)}),
    }
    names = data.draw(
        st.lists(st.sampled_from([*KEYS, "geometry"]), min_size=1, max_size=6, unique=True)
    )
    columns = {}
    for name in names:
        kind = data.draw(st.sampled_from(sorted(kinds)))
        columns[name] = pa.array(
            data.draw(st.lists(st.none() | some[kind], min_size=2, max_size=2)), kinds[kind]
        )
    table = pa.table(columns)
    if data.draw(st.booleans()):
        geo = {
            "primary_column": "geometry",
            "columns": {"geometry": {"encoding": "WKB"}},
        } | data.draw(
            st.dictionaries(st.sampled_from(["primary_column", "columns"]), values, max_size=1)
        )
        table = table.replace_schema_metadata({"geo": json.dumps(geo)})
    pq.write_table(table, tmp_path / "m.parquet")
    read_or_refuse(tmp_path / "m.parquet")


@JUNK
@given(
    share=st.floats(0, 0.999),
    flips=st.lists(st.tuples(st.floats(0, 0.999), st.integers(1, 255)), max_size=4),
    form=st.sampled_from(["m.csv", "m.parquet", "m.jsonl"]),
)
def test_torn_and_flipped_files(tmp_path, share, flips, form):
    rows = rows_of([LINE, {**LINE, "key": "b"}])
    path = tmp_path / form
    write = {"m.csv": write_csv, "m.parquet": write_parquet, "m.jsonl": write_lines}[form]
    write(path, [LINE, {**LINE, "key": "b"}] if write is write_lines else rows)
    torn = bytearray(path.read_bytes())
    for at, change in flips:
        torn[int(at * len(torn))] ^= change
    path.write_bytes(torn if flips else torn[: int(share * len(torn))])
    read_or_refuse(path)
