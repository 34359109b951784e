"""A STAC item collection of acquisitions and a list of tiles -> the records of a manifest. A tile
takes every item whose geometry touches it.

What an item does not say stands in the object "skysense" of the collection or of an item's
properties, see SETTINGS.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import shapely
from rasterio.warp import transform_geom
from shapely.errors import GEOSException

from data.errors import InputError
from data.prepare.contract.spot import LONLAT, spot_of
from data.prepare.manifest.tile_list import features_of, tile_rows
from data.prepare.readers.netcdf_series import CLOUDY
from data.suggest import did_you_mean
from data.tiles.modalities import MODALITIES

SETTINGS = {
    "modality": str,
    "bands": dict,
    "mask": str,
    "masked": list,
    "units": str,
    "licence": str,
    "attribution": str,
}
PLATFORMS = {"sentinel-2": "ms", "sentinel-1": "sar"}
# sensor -> names that catalogues give to its bands, in lower case, beside the sensor's own
COMMON = {
    "hr": {"red": "R", "green": "G", "blue": "B"},
    "ms": {
        "blue": "B02",
        "green": "B03",
        "red": "B04",
        "rededge1": "B05",
        "rededge2": "B06",
        "rededge3": "B07",
        "rededge071": "B05",
        "rededge075": "B06",
        "rededge078": "B07",
        "nir": "B08",
        "nir08": "B8A",
        "swir16": "B11",
        "swir22": "B12",
    },
    "sar": {},
}


def stac_records(
    path: Path, tiles: Path, make: Callable[[dict, str, Path], object]
) -> Iterator[tuple[str, dict]]:
    """One record a tile, its sources already made by ``make`` (source, where, folder): one reader
    an item, shared by the tiles. Raises InputError for a malformed file, and for a tile that no
    item touches."""
    collection = features_of(path)
    general = _settings(collection.get("skysense", {}), str(path))
    shapes, sources = [], []
    for number, item in enumerate(collection["features"]):
        where = f"{path}: features[{number}]"
        shapes.append(_shape(item.get("geometry"), where))
        sources.append(_Item(item, general, where).source(make, path.parent))
    tree = shapely.STRtree(shapes)
    for where, tile in tile_rows(tiles):
        spot = spot_of(tile, where)
        if spot is None:
            raise InputError(f"{where}: expected centre and cells, or a footprint")
        touched = sorted(tree.query(_outline(spot.grid()), predicate="intersects"))
        if not touched:
            raise InputError(f"{where}: no item of {path.name} touches this tile")
        chosen = [sources[i] for i in touched]
        yield (
            where,
            {
                **tile,
                "sources": [reader for readers, _, _ in chosen for reader in readers],
                "licence": "; ".join(dict.fromkeys(licence for _, licence, _ in chosen)),
                "attribution": "; ".join(dict.fromkeys(by for _, _, by in chosen)),
            },
        )


class _Item:
    """One acquisition."""

    def __init__(self, item: dict, general: dict, where: str) -> None:
        self.where = where
        self.properties, self.assets = item.get("properties"), item.get("assets")
        if (
            not isinstance(self.properties, dict)
            or not isinstance(self.assets, dict)
            or not all(
                isinstance(asset, dict) and isinstance(asset.get("href"), str)
                for asset in self.assets.values()
            )
        ):
            raise InputError(
                f"{where}: expected a STAC item with properties and assets, each with an href"
            )
        self.settings = {**general, **_settings(self.properties.get("skysense", {}), where)}
        self.modality = self._modality()

    def source(self, make: Callable, folder: Path) -> tuple[list, str, str]:
        """([reader], licence, attribution)."""
        licence = self.settings.get("licence", self.properties.get("license"))
        by = self.settings.get("attribution", self._providers())
        for name, value in (("licence", licence), ("attribution", by)):
            if not isinstance(value, str):
                raise InputError(
                    f"{self.where}: {name}: the item does not say it; give it in 'skysense'"
                )
        options = {
            "modality": self.modality,
            "date": self._date(),
            **self._images(),
            **self._mask(),
        }
        if "units" in self.settings:
            options["units"] = self.settings["units"]
        return [make(options, self.where, folder)], licence, by

    def _modality(self) -> str:
        names = " ".join(
            str(self.properties.get(key, "")).lower() for key in ("constellation", "platform")
        )
        found = self.settings.get(
            "modality", next((key for name, key in PLATFORMS.items() if name in names), None)
        )
        if found not in MODALITIES:
            raise InputError(
                f"{self.where}: the sensor is {found!r}; expected one of {sorted(MODALITIES)}, give it as "
                "'modality' in 'skysense'"
            )
        return found

    def _providers(self) -> str | None:
        found = self.properties.get("providers")
        names = (
            [
                entry["name"]
                for entry in found
                if isinstance(entry, dict) and isinstance(entry.get("name"), str)
            ]
            if isinstance(found, list)
            else []
        )
        return ", ".join(names) or None

    def _date(self) -> str:
        when = self.properties.get("datetime") or self.properties.get("start_datetime")
        if not isinstance(when, str):
            raise InputError(f"{self.where}: datetime: expected a time, found {when!r}")
        return when[:10]

    def _images(self) -> dict:
        """The reader's keys for the bands: a file of each, or one file of all."""
        wanted = MODALITIES[self.modality].bands
        single: dict[str, list[str]] = {}
        for name in self.assets:
            bands = self._bands(name)
            if len(bands) > 1 and set(wanted) <= set(bands):
                return {
                    "reader": "geotiff_image",
                    "path": self.assets[name]["href"],
                    "bands": bands,
                    **self._numbers([name]),
                }
            if len(bands) == 1 and bands[0] in wanted:
                single.setdefault(bands[0], []).append(name)
        chosen = {band: self._one(band, single.get(band, [])) for band in wanted}
        return {
            "reader": "geotiff_bands",
            "files": {band: self.assets[name]["href"] for band, name in chosen.items()},
            **self._numbers(list(chosen.values())),
        }

    def _bands(self, name: str) -> list[str]:
        """Registry names of an asset's bands; a band that the sensor lacks keeps its own name."""
        given, asset = self.settings.get("bands"), self.assets[name]
        if given is not None:
            found = given.get(name, [])
            return found if isinstance(found, list) else [found]
        if "data" not in asset.get("roles", ["data"]):
            return []
        known = {band.lower(): band for band in MODALITIES[self.modality].bands} | COMMON[
            self.modality
        ]
        bands = asset.get("eo:bands", asset.get("bands"))
        if not isinstance(bands, list) or not bands:
            return [known.get(name.lower(), name)]
        named = []
        for band in bands:
            band = band if isinstance(band, dict) else {}
            names = [band.get("name"), band.get("common_name"), band.get("eo:common_name")]
            names += [name] if len(bands) == 1 else []
            named.append(
                next(
                    (known[str(text).lower()] for text in names if str(text).lower() in known),
                    str(names[0]),
                )
            )
        return named

    def _one(self, band: str, assets: list[str]) -> str:
        """The asset of a band; of several the one GeoTIFF."""
        if len(assets) > 1:
            assets = [
                name for name in assets if "tiff" in str(self.assets[name].get("type", "")).lower()
            ] or assets
        if len(assets) != 1:
            raise InputError(
                f"{self.where}: band {band}: expected one asset, found {assets or 'none'} among "
                f"{sorted(self.assets)}; give \"bands\": {{asset: band}} in 'skysense'"
            )
        return assets[0]

    def _numbers(self, names: list[str]) -> dict:
        """Scale, offset and nodata, which must be those of all bands."""
        found = {}
        for key in ("scale", "offset", "nodata"):
            values = {value for name in names for value in self._values(self.assets[name], key)}
            if len(values) > 1 or not all(
                isinstance(value, int | float | None) for value in values
            ):
                raise InputError(
                    f"{self.where}: {key}: expected one number for all bands, found "
                    f"{sorted(map(str, values))}"
                )
            if values - {None}:
                found[key] = float(values.pop())
        if self.properties.get("earthsearch:boa_offset_applied") is True:
            found.pop("offset", None)  # the pixels have it already, whatever raster:bands repeats
        return found

    @staticmethod
    def _values(asset: dict, key: str) -> list:
        bands = asset.get("raster:bands", asset.get("bands"))
        common = asset.get(key if key == "nodata" else f"raster:{key}")
        bands = (
            [band for band in bands if isinstance(band, dict)] if isinstance(bands, list) else []
        )
        values = [band.get(key, band.get(f"raster:{key}", common)) for band in bands] or [common]
        return [value if isinstance(value, int | float | None) else str(value) for value in values]

    def _mask(self) -> dict:
        """The raster of codes that hide pixels: as set, or the scene classification of Sentinel-2."""
        name, masked = self.settings.get("mask"), self.settings.get("masked", list(CLOUDY))
        if name is None and self.modality == "ms":
            name = next((name for name in self.assets if name.lower() == "scl"), None)
        if name is None:
            return {}
        if name not in self.assets:
            raise InputError(
                f"{self.where}: mask: no asset {name!r}{did_you_mean(name, self.assets)}"
            )
        return {"mask": self.assets[name]["href"], "masked": masked}


def _settings(settings: object, where: str) -> dict:
    """The object "skysense": known keys, right types."""
    if not isinstance(settings, dict):
        raise InputError(f"{where}: skysense: expected an object, found {type(settings).__name__}")
    for key, value in settings.items():
        if key not in SETTINGS:
            raise InputError(
                f"{where}: skysense: unknown key {key!r}{did_you_mean(key, SETTINGS)}; "
                f"known: {sorted(SETTINGS)}"
            )
        if not isinstance(value, SETTINGS[key]):
            raise InputError(
                f"{where}: skysense: {key}: expected {SETTINGS[key].__name__}, "
                f"found {type(value).__name__}"
            )
    return settings


def _shape(geometry: object, where: str) -> shapely.Geometry:
    """An item's geometry in lon/lat."""
    try:
        shape = shapely.geometry.shape(geometry)
        sound = not shape.is_empty
    except (GEOSException, AttributeError, LookupError, TypeError, ValueError):
        sound = False
    if not sound:
        raise InputError(
            f"{where}: geometry: expected a GeoJSON geometry, found {str(geometry)[:60]}"
        )
    return shape


def _outline(grid) -> shapely.Geometry:
    """A grid's square in lon/lat."""
    side = grid.cells * 10.0
    square = shapely.geometry.mapping(shapely.box(grid.x0, grid.y0 - side, grid.x0 + side, grid.y0))
    return shapely.geometry.shape(transform_geom(grid.crs, LONLAT, square))
