"""One acquisition of a STAC catalogue -> the keys of a reader.

pystac reads the item: its links, times and providers. What the bands are and mean is found here,
because catalogues say it in three ways (eo:bands and raster:bands, bands, names of assets) that
pystac does not bring together.
"""

from datetime import datetime
from pathlib import Path

import pystac

from data.errors import InputError
from data.prepare.contract.sentinel2 import CLOUDY
from data.prepare.manifest.table import one_line
from data.suggest import did_you_mean
from data.tiles.modalities import MODALITIES

# What pystac raises over an item that is none.
ITEM_ERRORS = (
    pystac.STACError,
    pystac.STACTypeError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)


def read_item(feature: dict, path: Path, where: str) -> pystac.Item:
    """A feature of an item collection as a STAC item.

    Args:
        feature: as JSON has it.
        path: the collection. Addresses are relative to it when the item has no link to itself.
        where: the item's place in the collection, for errors.

    Raises:
        InputError: no STAC item.
    """
    try:
        # Migration would call every licence "other" that newer versions do not know by name.
        item = pystac.Item.from_dict(feature, migrate=False)
        if item.get_self_href() is None:
            item.set_self_href(str(path))
        return item
    except ITEM_ERRORS as error:
        raise InputError(
            f"{where}: expected a STAC item with a time and assets, each with an href "
            f"({type(error).__name__}: {one_line(error)})"
        ) from None


class Acquisition:
    """What an item and the user's settings say of one acquisition.

    Args:
        item: the item.
        settings: the object "skysense" of the collection and of the item, see stac.SETTINGS.
        where: the item's place in the collection, for errors.

    Raises:
        InputError: the sensor, the licence or the attribution is not said.
    """

    def __init__(self, item: pystac.Item, settings: dict, where: str) -> None:
        self.where = where
        self._item = item
        self._settings = settings
        self._modality = self._find_modality()
        self.licence = self._text("licence", item.properties.get("license"))
        self.attribution = self._text("attribution", self._providers())

    def reader_keys(self) -> dict:
        """The source object of a manifest that reads this acquisition."""
        keys = {
            "modality": self._modality,
            "date": self._date(),
            **self._images(),
            **self._mask(),
        }
        if "units" in self._settings:
            keys["units"] = self._settings["units"]
        return keys

    def _text(self, name: str, default: object) -> str:
        """A setting, or what the item says."""
        value = self._settings.get(name, default)
        if not isinstance(value, str):
            raise InputError(
                f"{self.where}: {name}: the item does not say it; give it in 'skysense'"
            )
        return value

    def _find_modality(self) -> str:
        properties = self._item.properties
        platform = f"{properties.get('constellation')} {properties.get('platform')}".lower()
        modality = self._settings.get("modality")
        for sensor in MODALITIES.values():
            for name in sensor.catalogue.platforms:
                if modality is None and name in platform:
                    modality = sensor.key
        if modality not in MODALITIES:
            raise InputError(
                f"{self.where}: the sensor is {modality!r}; expected one of {sorted(MODALITIES)}, "
                "give it as 'modality' in 'skysense'"
            )
        return str(modality)

    def _providers(self) -> str | None:
        """The names of the item's providers."""
        try:
            providers = self._item.common_metadata.providers
        except ITEM_ERRORS:
            providers = None  # no list of providers, so the settings must name them
        if not providers:
            return None
        return ", ".join(str(provider.name) for provider in providers)

    def _date(self) -> str:
        """The ISO day of the acquisition, or of its start."""
        time = self._item.datetime
        if time is None:
            start = self._item.properties["start_datetime"]  # pystac has checked that it is there
            try:
                time = datetime.fromisoformat(start)
            except (TypeError, ValueError):
                raise InputError(
                    f"{self.where}: start_datetime: expected a time, found {start!r}"
                ) from None
        return time.date().isoformat()

    def _images(self) -> dict:
        """The reader's keys for the bands: one file of all, or a file of each."""
        wanted = MODALITIES[self._modality].bands
        assets_of: dict[str, list[str]] = {band: [] for band in wanted}
        for name in self._item.assets:
            bands = self._bands(name)
            if len(bands) > 1 and set(wanted) <= set(bands):
                return {
                    "reader": "geotiff_image",
                    "path": self._href(name),
                    "bands": bands,
                    **self._numbers([name]),
                }
            if len(bands) == 1 and bands[0] in assets_of:
                assets_of[bands[0]].append(name)
        chosen = {band: self._choose(band, assets_of[band]) for band in wanted}
        return {
            "reader": "geotiff_bands",
            "files": {band: self._href(name) for band, name in chosen.items()},
            **self._numbers(list(chosen.values())),
        }

    def _href(self, name: str) -> str | None:
        """The address of an asset, relative addresses resolved."""
        return self._item.assets[name].get_absolute_href()

    def _bands(self, name: str) -> list[str]:
        """Registry names of an asset's bands; a band that the sensor lacks keeps its own name."""
        bands = self._settings.get("bands")
        if bands is not None:
            named = bands.get(name, [])
            if not isinstance(named, list):
                named = [named]
            return [str(band) for band in named]
        asset = self._item.assets[name]
        if isinstance(asset.roles, list) and "data" not in asset.roles:
            return []
        bands = asset.extra_fields.get("eo:bands", asset.extra_fields.get("bands"))
        if not isinstance(bands, list) or not bands:
            return [self._registry_name([name])]
        named = []
        for band in bands:
            names: list[object] = [None]
            if isinstance(band, dict):
                names = [band.get("name"), band.get("common_name"), band.get("eo:common_name")]
            if len(bands) == 1:
                names.append(name)
            named.append(self._registry_name(names))
        return named

    def _registry_name(self, names: list) -> str:
        """The sensor's own name of a band, or its first name when the sensor lacks it."""
        known = {band.lower(): band for band in MODALITIES[self._modality].bands}
        known.update(MODALITIES[self._modality].catalogue.bands)
        for name in names:
            if str(name).lower() in known:
                return known[str(name).lower()]
        return str(names[0])

    def _choose(self, band: str, names: list[str]) -> str:
        """The asset of a band; of several the one GeoTIFF."""
        assets = self._item.assets
        candidates = [name for name in names if "tiff" in str(assets[name].media_type).lower()]
        if len(names) == 1 or not candidates:
            candidates = names
        if len(candidates) != 1:
            raise InputError(
                f"{self.where}: band {band}: expected one asset, found {candidates or 'none'} "
                f"among {sorted(assets)}; give \"bands\": {{asset: band}} in 'skysense'"
            )
        return candidates[0]

    def _numbers(self, names: list[str]) -> dict[str, float]:
        """Scale, offset and nodata, which must be those of all bands."""
        numbers = {}
        for key in ("scale", "offset", "nodata"):
            values = set()
            for name in names:
                values.update(_band_values(self._item.assets[name], key))
            sound = all(isinstance(value, int | float | None) for value in values)
            if len(values) > 1 or not sound:
                raise InputError(
                    f"{self.where}: {key}: expected one number for all bands, found "
                    f"{sorted(map(str, values))}"
                )
            if values - {None}:
                numbers[key] = float(values.pop())
        if self._item.properties.get("earthsearch:boa_offset_applied") is True:
            # The pixels have the offset already, although raster:bands repeats it.
            numbers.pop("offset", None)
        return numbers

    def _mask(self) -> dict:
        """The raster of codes that hide pixels.

        It is set by the user, or it is the scene classification of the sensor.
        """
        assets = self._item.assets
        mask = self._settings.get("mask")
        classification = MODALITIES[self._modality].catalogue.classification
        if mask is None and classification is not None:
            for name in assets:
                if name.lower() == classification:
                    mask = name
                    break
        if mask is None:
            return {}
        if mask not in assets:
            raise InputError(f"{self.where}: mask: no asset {mask!r}{did_you_mean(mask, assets)}")
        return {"mask": self._href(mask), "masked": self._settings.get("masked", list(CLOUDY))}


def _band_values(asset: pystac.Asset, key: str) -> list:
    """What an asset says of a number, for each of its bands."""
    fields = asset.extra_fields
    common = fields.get(f"raster:{key}")
    if key == "nodata":
        common = fields.get("nodata")
    bands = fields.get("raster:bands", fields.get("bands"))
    values = []
    if isinstance(bands, list):
        for band in bands:
            if isinstance(band, dict):
                values.append(band.get(key, band.get(f"raster:{key}", common)))
    if not values:
        values = [common]
    return [_hashable(value) for value in values]


def _hashable(value: object) -> object:
    """A number as it is, anything else as text."""
    if isinstance(value, int | float | None):
        return value
    return str(value)
