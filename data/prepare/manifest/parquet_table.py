"""Tables with types: Parquet, and GeoParquet with a geometry."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pyproj
from pyproj.exceptions import CRSError

from data.errors import InputError
from data.prepare.manifest.cells import (
    CellForm,
    Row,
    cell_of_text,
    cell_of_value,
    check_header,
    one_line,
    polygon,
)
from data.prepare.manifest.mistakes import Mistakes

BATCH = 4096  # rows
INDEX_OF_PANDAS = re.compile(r"__index_level_\d+__")  # numbers of rows that nobody asked for
PARQUET_ERRORS = (pyarrow.ArrowException, OSError, ValueError, LookupError, OverflowError)


def parquet_rows(path: Path, forms: Mapping[str, CellForm], mistakes: Mistakes) -> Iterator[Row]:
    """Read a Parquet table whose columns have these forms, beside the primary geometry.

    Args:
        path: the table.
        forms: by column. Lists and objects may also be text, as in CSV.
        mistakes: takes geometries that are none, and text of another form.

    Yields:
        'file:row' and the cells that are not null, for each row without a mistake. The geometry
        becomes the footprint.

    Raises:
        InputError: other columns, or a damaged or other file.
    """
    try:
        file = pyarrow.parquet.ParquetFile(path)
    except PARQUET_ERRORS as error:
        raise InputError(
            f"{path}: expected a Parquet table, found a damaged or other file ({one_line(error)})"
        ) from None
    with file:
        geometry = _geometry_column(file.schema_arrow, path)
        known = set(forms)
        if geometry.name is not None:
            known.add(geometry.name)
        names = []
        for name in file.schema_arrow.names:
            if name != geometry.bounds and not INDEX_OF_PANDAS.fullmatch(name):
                names.append(name)
        check_header(names, known, str(path))
        for number, cells in enumerate(_parquet_cells(file, path, names), 1):
            where = f"{path}:{number}"
            faults = []
            row = {}
            for name, value in cells.items():
                try:
                    if name != geometry.name:
                        row[name] = _cell(value, forms[name])
                    elif value is not None:
                        row["footprint"] = polygon(value, geometry.crs)
                except ValueError as error:
                    faults.append(f"{name}: {error}")
            mistakes.add(where, *faults)
            if not faults:
                yield where, {name: value for name, value in row.items() if value is not None}


def _cell(value: object, form: CellForm) -> object:
    """A cell as JSON would have it; ValueError says what is wrong with text."""
    value = cell_of_value(value)
    if isinstance(value, str) and (form.is_list or form.may_be_object or form.parse is polygon):
        return cell_of_text(value, form)
    return value


def _parquet_cells(
    file: pyarrow.parquet.ParquetFile, path: Path, names: list[str]
) -> Iterator[dict]:
    """The cells of some columns of each row of an open file."""
    count = 0
    batches = file.iter_batches(BATCH, columns=names)
    while True:
        try:
            rows = _in_utc(next(batches)).to_pylist(maps_as_pydicts="strict")
        except StopIteration:
            return
        except PARQUET_ERRORS as error:
            raise InputError(
                f"{path}: row {count + 1} and those behind it are damaged ({one_line(error)})"
            ) from None
        yield from rows
        count += len(rows)


def _in_utc(batch: pyarrow.RecordBatch) -> pyarrow.RecordBatch:
    """The rows with times in UTC and to the millisecond, which Python's times can hold."""
    fields = []
    for column in batch.schema:
        if pyarrow.types.is_timestamp(column.type):
            column = column.with_type(pyarrow.timestamp("ms", "UTC"))
        fields.append(column)
    return batch.cast(pyarrow.schema(fields), safe=False)


@dataclass(frozen=True)
class _Geometry:
    """The primary geometry column of GeoParquet."""

    name: str | None = None  # None: a plain table
    crs: str | None = None  # as WKT, None for lon/lat
    bounds: str | None = None  # a column that repeats the bounds of each geometry


def _geometry_column(schema: pyarrow.Schema, path: Path) -> _Geometry:
    """The primary geometry column of GeoParquet."""
    metadata = schema.metadata
    if metadata is None or b"geo" not in metadata:
        return _Geometry()
    try:
        geo = json.loads(metadata[b"geo"])
        name = geo["primary_column"]
        column = geo["columns"][name]
        encoding = column["encoding"]
        crs = pyproj.CRS.from_user_input(column.get("crs", "OGC:CRS84"))
        bounds = None
        if "covering" in column:
            bounds = column["covering"]["bbox"]["xmin"][0]
    except (ValueError, KeyError, TypeError, AttributeError, CRSError) as error:
        raise InputError(
            f"{path}: expected GeoParquet metadata with a primary column and a CRS that can be "
            f"read ({one_line(error)})"
        ) from None
    if encoding != "WKB" or name not in schema.names:
        raise InputError(
            f"{path}: geometry column {name!r}: expected one in WKB, found {encoding!r}"
        )
    if crs.equals("OGC:CRS84") or crs.to_epsg() == 4326:
        return _Geometry(name, bounds=bounds)
    return _Geometry(name, crs.to_wkt(), bounds)
