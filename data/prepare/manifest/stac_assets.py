"""The assets of a STAC item: which band is in which, and which of several is read.

Catalogues say it in three ways (eo:bands, bands, names of assets) that pystac does not bring
together.
"""

import re

import pystac

from data.errors import InputError
from data.prepare.contract.bands import registry_name
from data.tiles.modalities import Modality

ORIGINAL = "sampling:original"  # the role of the pixels that were not resampled
GSD_IN_NAME = re.compile(r"_(\d+)m\b", re.IGNORECASE)


class Assets:
    """The assets of an item as images of one sensor.

    Args:
        item: the item.
        sensor: the sensor.
        named: the bands of assets as the user names them; None: as the item does.
        where: the item's place in the collection, for errors.
    """

    def __init__(
        self, item: pystac.Item, sensor: Modality, named: dict | None, *, where: str
    ) -> None:
        self._assets = item.assets
        self._sensor = sensor
        self._named = named
        self._where = where

    def image(self) -> tuple[str, list[str]] | None:
        """The one asset that has all bands of the sensor, and the names of its bands.

        A band that the sensor lacks keeps its own name. None: no asset has all.
        """
        for name in self._assets:
            bands = self.bands(name)
            if len(bands) > 1 and set(self._sensor.bands) <= set(bands):
                return name, bands
        return None

    def files(self) -> dict[str, str]:
        """The asset of each band of the sensor.

        Raises:
            InputError: a band has none, or several that are equally good.
        """
        assets_of: dict[str, list[str]] = {band: [] for band in self._sensor.bands}
        for name in self._assets:
            bands = self.bands(name)
            if len(bands) == 1 and bands[0] in assets_of:
                assets_of[bands[0]].append(name)
        return {band: self._choose(band, names) for band, names in assets_of.items()}

    def bands(self, name: str) -> list[str]:
        """The bands of an asset; none for one that holds no data."""
        if self._named is not None:
            named = self._named.get(name, [])
            if not isinstance(named, list):
                named = [named]
            return [self._registry_name([band]) for band in named]
        asset = self._assets[name]
        if isinstance(asset.roles, list) and not {"data", "reflectance"} & set(asset.roles):
            return []
        entries = asset.extra_fields.get("eo:bands", asset.extra_fields.get("bands"))
        if not isinstance(entries, list) or not entries:
            return [self._registry_name([name])]
        bands = []
        for entry in entries:
            names: list[object] = [None]
            if isinstance(entry, dict):
                names = [entry.get(key) for key in ("name", "common_name", "eo:common_name")]
            if len(entries) == 1:
                names.append(name)
            bands.append(self._registry_name(names))
        return bands

    def classification(self) -> str | None:
        """The asset with the codes of the sensor's scene classification, if there is one."""
        wanted = self._sensor.catalogue.classification
        if wanted is None:
            return None
        names = [name for name in self._assets if GSD_IN_NAME.sub("", name).lower() == wanted]
        if not names:
            return None
        return self._best(names)[0]

    def _registry_name(self, names: list) -> str:
        """The sensor's own name of a band, or its first name when the sensor lacks it."""
        for name in names:
            band = registry_name(str(name), self._sensor)
            if name is not None and band is not None:
                return band
        return str(names[0])

    def _choose(self, band: str, names: list[str]) -> str:
        """The asset of a band; of several the one with the finest pixels, as GeoTIFF."""
        best = self._best(names)
        if len(best) != 1:
            raise InputError(
                f"{self._where}: band {band}: expected one asset, found {best or 'none'} "
                f"among {sorted(self._assets)}; give \"bands\": {{asset: band}} in 'skysense'"
            )
        return best[0]

    def _best(self, names: list[str]) -> list[str]:
        """Of assets of one band those that were not resampled, of these the finest GeoTIFFs."""
        original = [name for name in names if ORIGINAL in (self._assets[name].roles or [])]
        best = original or names
        sizes = {name: self._gsd(name) for name in best}
        known = [size for size in sizes.values() if size is not None]
        if len(known) == len(best) and known:
            best = [name for name in best if sizes[name] == min(known)]
        tiffs = [name for name in best if "tiff" in str(self._assets[name].media_type).lower()]
        return tiffs or best

    def _gsd(self, name: str) -> float | None:
        """Metres of a pixel of an asset, as it says or as its name does."""
        fields = self._assets[name].extra_fields
        for key in ("gsd", "raster:spatial_resolution", "eo:gsd"):
            size = fields.get(key)
            if isinstance(size, int | float):
                return float(size)
        match = GSD_IN_NAME.search(name)
        if match is None:
            return None
        return float(match.group(1))
