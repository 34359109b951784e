"""One acquisition of a STAC catalogue -> the keys of a reader.

pystac reads the item: its links, times and providers. What its bands are stands in stac_assets.py,
and what their numbers mean in stac_numbers.py.
"""

from collections.abc import Callable
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import pystac

from data.errors import InputError
from data.prepare.contract.days import in_utc, utc_day
from data.prepare.contract.sentinel2 import CLOUDY
from data.prepare.manifest.cells import one_line
from data.prepare.manifest.stac_assets import Assets
from data.prepare.manifest.stac_numbers import (
    NO_UNIT,
    REMEDY,
    Numbers,
    Sentinel2Offset,
    common_or_each,
    numbers_of_bands,
    sentinel2_offset,
    units_of,
)
from data.suggest import did_you_mean
from data.tiles.modalities import DECIBEL, MODALITIES, REFLECTANCE

# What pystac raises over an item that is none.
ITEM_ERRORS = (
    pystac.STACError,
    pystac.STACTypeError,
    AttributeError,
    LookupError,
    TypeError,
    ValueError,
)
# How assets name the units of backscatter -> the key ``units``.
SAR_UNITS = {
    "db": "db",
    "decibel": "db",
    "decibels": "db",
    "power": "power",
    "linear": "power",
    "linear power": "power",
    "amplitude": "amplitude",
}


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

    Attributes:
        rights: its licence and attribution.
        keys: the source object of a manifest that reads it.
        faults: what is missing or makes no sense, each on one line; then ``rights`` and ``keys``
            are not whole.

    Raises:
        InputError: the sensor is not said.
    """

    def __init__(self, item: pystac.Item, settings: dict, where: str) -> None:
        self.where = where
        self._item = item
        self._settings = settings
        self._sensor = MODALITIES[self._find_modality()]
        self._assets = Assets(item, self._sensor, settings.get("bands"), where=where)
        self.faults: list[str] = []
        self.rights = self._gathered(self._licence, self._attribution)
        self.keys = {
            "modality": self._sensor.key,
            **self._gathered(self._day, self._images, self._mask),
        }

    def _gathered(self, *parts: Callable[[], dict]) -> dict:
        """The keys of several parts; what is wrong with them goes to the faults."""
        keys = {}
        for part in parts:
            try:
                keys.update(part())
            except InputError as error:
                if str(error) not in self.faults:
                    self.faults.append(str(error))
        return keys

    def _licence(self) -> dict[str, str]:
        return self._text("licence", self._item.properties.get("license"))

    def _attribution(self) -> dict[str, str]:
        return self._text("attribution", self._providers())

    def _day(self) -> dict[str, str]:
        return {"date": self._time().isoformat()}

    def _text(self, name: str, default: object) -> dict[str, str]:
        """A key whose value is a setting, or what the item says."""
        value = self._settings.get(name, default)
        if not isinstance(value, str):
            raise InputError(
                f"{self.where}: {name}: the item does not say it; give it in 'skysense'"
            )
        return {name: value}

    def _find_modality(self) -> str:
        modality = self._settings.get("modality")
        if modality is None:
            modality = self._modality_of_platform()
        if modality is None or modality not in MODALITIES:
            raise InputError(
                f"{self.where}: the sensor is {modality!r}; expected one of {sorted(MODALITIES)}, "
                "give it as 'modality' in 'skysense'"
            )
        return modality

    def _modality_of_platform(self) -> str | None:
        """The sensor that the item names, by its platform or constellation.

        Raises:
            InputError: it is one of Sentinel-2 at the top of the atmosphere.
        """
        platform = self._platform()
        for sensor in MODALITIES.values():
            if any(name in platform for name in sensor.catalogue.platforms):
                self._need_ground(sensor.unit == REFLECTANCE)
                return sensor.key
        return None

    def _platform(self) -> str:
        properties = self._item.properties
        names = f"{properties.get('constellation')} {properties.get('platform')}".lower()
        return names.replace("_", "-").replace("sentinel 2", "sentinel-2")

    def _need_ground(self, is_reflectance: bool) -> None:
        """Raise InputError for a Level-1C item of a sensor of reflectance of the ground."""
        properties = self._item.properties
        names = ("s2:product_type", "s2:product_uri", "processing:level", "product:type")
        words = [str(properties.get(name)) for name in names]
        words += [str(self._item.id), str(self._item.collection_id)]
        text = " ".join(words).upper().replace("-", "")
        if is_reflectance and ("L1C" in text or "LEVEL1C" in text or "MSI1C" in text):
            raise InputError(
                f"{self.where}: expected reflectance of the ground (Level-2A), found Level-1C, the "
                "top of the atmosphere; search the collection of Level-2A"
            )

    def _providers(self) -> str | None:
        """The names of the item's providers."""
        try:
            providers = self._item.common_metadata.providers
        except ITEM_ERRORS:
            providers = None  # no list of providers, so the settings must name them
        if not providers:
            return None
        return ", ".join(str(provider.name) for provider in providers)

    def _time(self) -> datetime:
        """The time of the acquisition, or of its start, in UTC without a zone."""
        time = self._item.datetime
        if time is None:
            start = self._item.properties["start_datetime"]  # pystac has checked that it is there
            try:
                time = datetime.fromisoformat(start)
            except (TypeError, ValueError):
                raise InputError(
                    f"{self.where}: start_datetime: expected a time, found {start!r}"
                ) from None
        try:
            return in_utc(time)
        except ValueError as error:
            raise InputError(f"{self.where}: expected a time of this age, found {error}") from None

    def _images(self) -> dict:
        """The reader's keys for the bands: one file of all, or a file of each."""
        image = self._assets.image()
        if image is not None:
            name, bands = image
            asset = self._item.assets[name]
            wanted = [band for band in bands if band in self._sensor.bands]
            return {
                "reader": "geotiff_image",
                "path": asset.get_absolute_href(),
                "bands": bands,
                **self._units([asset]),
                **self._numbers({band: (asset, bands.index(band)) for band in wanted}, len(bands)),
            }
        files = self._assets.files()
        assets = {band: self._item.assets[name] for band, name in files.items()}
        return {
            "reader": "geotiff_bands",
            "files": {band: asset.get_absolute_href() for band, asset in assets.items()},
            **self._units(list(assets.values())),
            **self._numbers({band: (asset, 0) for band, asset in assets.items()}, 1),
        }

    def _numbers(self, bands: dict[str, tuple[pystac.Asset, int]], count: int) -> dict:
        """The reader's keys for scale, offset and nodata.

        Args:
            bands: the asset of each band, and the band's position in it.
            count: bands of an asset.
        """
        given = {key: self._settings[key] for key in asdict(Numbers()) if key in self._settings}
        if {"scale", "offset"} & given.keys():
            return given
        agency = self._agency_product()
        stated = {}
        numbers = {}
        for band, (asset, position) in bands.items():
            try:
                own = numbers_of_bands(asset, count)[position]
                stated[band] = own
                if agency is not None:
                    own = agency.of_asset(asset).complete(own)
            except ValueError as error:
                raise InputError(f"{self.where}: band {band}: {error}") from None
            numbers[band] = own
        if self._sensor.unit == REFLECTANCE:
            self._need_offset_of_all(stated, numbers)
        return {**common_or_each(numbers), **given}

    def _need_offset_of_all(self, stated: dict[str, Numbers], numbers: dict[str, Numbers]) -> None:
        """Raise InputError when bands without a statement would be read otherwise than the others.

        Args:
            stated: what the item says of each band.
            numbers: how each band would be read.
        """
        offsets = {own.offset or 0.0 for own in numbers.values()}
        told = [band for band, own in stated.items() if own.offset is not None]
        silent = [band for band in stated if band not in told]
        if told and silent and len(offsets) > 1:
            raise InputError(
                f"{self.where}: the item gives an offset for the bands {told} and none for "
                f"{silent}; {REMEDY}"
            )

    def _agency_product(self) -> Sentinel2Offset | None:
        """What the item says of the offset; None unless its pixels are of an agency's product."""
        is_harmonised = str(self._item.id).upper().startswith("HLS")
        if self._sensor.unit != REFLECTANCE or is_harmonised:
            return None
        try:
            offset = sentinel2_offset(self._item, utc_day(self._time()))
        except ValueError as error:
            raise InputError(f"{self.where}: {error}") from None
        if offset.baseline is None and "sentinel-2" not in self._platform():
            return None
        return offset

    def _units(self, assets: list[pystac.Asset]) -> dict[str, str]:
        """The key ``units``.

        Raises:
            InputError: the assets are in a unit that is not reflectance.
        """
        if "units" in self._settings:
            return {"units": self._settings["units"]}
        named: set[str] = set()
        for asset in assets:
            named.update(unit.strip().lower() for unit in units_of(asset))
        if self._sensor.unit == DECIBEL:
            units = {SAR_UNITS[name] for name in named if name in SAR_UNITS}
            if len(units) == 1:
                return {"units": units.pop()}
            return {}
        wrong = sorted(named - set(NO_UNIT))
        if self._sensor.unit == REFLECTANCE and wrong and "scale" not in self._settings:
            raise InputError(
                f"{self.where}: expected bands of reflectance, found the unit {wrong[0]!r}; give "
                "'scale' in 'skysense' if raw x scale + offset is reflectance (0.01 for per cent)"
            )
        return {}

    def _mask(self) -> dict:
        """The raster of codes that hide pixels.

        It is set by the user, or it is the scene classification of the sensor.
        """
        assets = self._item.assets
        mask = self._settings.get("mask", self._assets.classification())
        if mask is None:
            return {}
        if mask not in assets:
            raise InputError(f"{self.where}: mask: no asset {mask!r}{did_you_mean(mask, assets)}")
        names = ("mask_band", "masked", "masked_bits")
        given = {name: self._settings[name] for name in names if name in self._settings}
        if "masked" not in given and "masked_bits" not in given:
            given["masked"] = list(CLOUDY)
        return {"mask": assets[mask].get_absolute_href(), **given}
