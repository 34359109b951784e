"""Manifests in all forms, for the tests of their readers."""

import csv
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely

from tests.paths import SAMPLES


def sample_records() -> list[dict]:
    """The samples' manifest with absolute paths."""
    records = []
    for line in (SAMPLES / "manifest.jsonl").read_text().splitlines():
        record = json.loads(line)
        for source in record["sources"]:
            for key in ("path", "path_20m", "like"):
                if key in source:
                    source[key] = str(SAMPLES / source[key])
            if "paths" in source:
                source["paths"] = [str(SAMPLES / path) for path in source["paths"]]
        records.append(record)
    return records


def rows_of(records: list[dict]) -> list[dict]:
    """Long form: one row a source; what belongs to the tile stands in its first row only."""
    rows = []
    for record in records:
        for i, source in enumerate(record["sources"]):
            tile = {
                name: value
                for name, value in record.items()
                if name != "sources" and (i == 0 or name == "key")
            }
            rows.append({**tile, **source})
    return rows


def write_csv(path: Path, rows: list[dict]) -> Path:
    names = list(dict.fromkeys(name for row in rows for name in row))

    def text(value):
        if isinstance(value, list):
            return ";".join(map(str, value))
        return json.dumps(value) if isinstance(value, dict) else str(value)

    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, names, restval="")
        writer.writeheader()
        writer.writerows([{name: text(value) for name, value in row.items()} for row in rows])
    return path


def write_parquet(path: Path, rows: list[dict], geometry=None, crs=None) -> Path:
    """A table with real lists and structs; with ``geometry``, one polygon a row, GeoParquet."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    table = pa.table({name: [row.get(name) for row in rows] for name in names})
    if geometry:
        column = {"encoding": "WKB", "geometry_types": ["Polygon"]}
        column |= {} if crs is None else {"crs": pyproj.CRS(crs).to_json_dict()}
        table = table.append_column(
            "geometry", pa.array([shapely.to_wkb(shape) for shape in geometry], pa.binary())
        )
        table = table.replace_schema_metadata(
            {
                "geo": json.dumps(
                    {
                        "version": "1.1.0",
                        "primary_column": "geometry",
                        "columns": {"geometry": column},
                    }
                )
            }
        )
    pq.write_table(table, path)
    return path


def write_lines(path: Path, records: list[dict]) -> Path:
    path.write_text("\n".join(json.dumps(record) for record in records))
    return path


def earth_search_item(**changes) -> dict:
    """An item as the public catalogue of Sentinel-2 COGs has them, shortened."""
    names = {
        "blue": "blue",
        "green": "green",
        "red": "red",
        "rededge1": "rededge",
        "rededge2": "rededge",
        "rededge3": "rededge",
        "nir": "nir",
        "nir08": "nir08",
        "swir16": "swir16",
        "swir22": "swir22",
        "coastal": "coastal",
    }
    numbers = [{"nodata": 0, "data_type": "uint16", "scale": 0.0001, "offset": -0.1}]
    assets = {
        name: {
            "href": f"https://example.com/S2/{name}.tif",
            "type": "image/tiff; application=geotiff",
            "eo:bands": [{"name": name, "common_name": common}],
            "raster:bands": numbers,
            "roles": ["data", "reflectance"],
        }
        for name, common in names.items()
    }
    assets |= {
        f"{name}-jp2": {**asset, "href": f"s3://bucket/{name}.jp2", "type": "image/jp2"}
        for name, asset in assets.items()
    }
    assets["visual"] = {
        "href": "https://example.com/S2/TCI.tif",
        "roles": ["visual"],
        "eo:bands": [{"name": "red"}, {"name": "green"}, {"name": "blue"}],
    }
    assets["scl"] = {"href": "https://example.com/S2/SCL.tif", "roles": ["data", "reflectance"]}
    return {
        "type": "Feature",
        "stac_version": "1.0.0",
        "id": "S2A",
        "assets": assets,
        "geometry": {
            "type": "Polygon",
            "coordinates": [[[8, 48], [10, 48], [10, 50], [8, 50], [8, 48]]],
        },
        "properties": {
            "datetime": "2022-07-01T10:36:41.123Z",
            "platform": "sentinel-2a",
            "constellation": "sentinel-2",
            "license": "proprietary",
            "providers": [{"name": "ESA"}, {"name": "Element 84"}],
            **changes,
        },
    }


def write_stac(folder: Path, items: list[dict], tiles: str, **general) -> tuple[Path, Path]:
    (folder / "items.json").write_text(
        json.dumps({"type": "FeatureCollection", "features": items, **general})
    )
    (folder / "tiles.csv").write_text(tiles)
    return folder / "items.json", folder / "tiles.csv"


IMAGE = {
    "reader": "geotiff_image",
    "path": "a.tif",
    "modality": "hr",
    "bands": ["R", "G", "B"],
    "date": "2020-05-01",
}


LINE = {"key": "a", "licence": "CC0-1.0", "attribution": "nobody", "sources": [IMAGE]}
