"""The metadata of a Sentinel-2 Level-2A product, in the schemas of all years."""

import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from data.errors import InputError
from data.prepare.contract.days import in_utc
from data.prepare.contract.files import need_file, reading
from data.prepare.contract.sentinel2 import (
    baseline_in_name,
    baseline_of,
    baseline_text,
    first_known,
    has_offset,
)

METADATA = "MTD_MSIL2A.xml"
OLD_METADATA = "S2?_*_MTD_SAFL2A_*.xml"  # until 2016
PACKED = (".zip", ".tar", ".gz", ".tgz", ".7z")
BAND_OF_ID = (
    "B01",
    "B02",
    "B03",
    "B04",
    "B05",
    "B06",
    "B07",
    "B08",
    "B8A",
    "B09",
    "B10",
    "B11",
    "B12",
)


@dataclass(frozen=True)
class Product:
    """A product and what its metadata say. Reflectance is (raw + offset) * scale."""

    folder: Path
    start: datetime  # of sensing, in UTC without a zone
    scale: float
    offsets: dict[str, float]  # band -> offset in raw numbers; empty: there is none

    def offset(self, band: str) -> float:
        """The offset of a band in raw numbers.

        Raises:
            InputError: the metadata have offsets, but not of this band.
        """
        if not self.offsets:
            return 0.0
        if band not in self.offsets:
            raise InputError(
                f"{self.folder}: expected a BOA_ADD_OFFSET of each band, found none of {band}; "
                "fetch the product again"
            )
        return self.offsets[band]


def safe_name_faults(path: Path) -> list[str]:
    """What the name of a product says against it; see ``Reader.check_keys``."""
    if path.suffix.lower() in PACKED:
        return [
            f"path {path.name!r}: expected a folder, found a packed product; unpack it "
            f"(unzip {path.name}) and give the .SAFE folder"
        ]
    if "MSIL1C" in path.name or "SAFL1C" in path.name:
        return [_level_1c(path.name)]
    return []


def read_product(path: Path) -> Product:
    """The product at ``path``.

    Args:
        path: its folder, its metadata file, or a folder that holds it and no other product.

    Raises:
        InputError: there is none, several, one of another level, or its metadata lack something.
    """
    need_file(path)
    file = _metadata_file(path)
    with reading(file, "the metadata of a Level-2A product"):
        try:
            root = ElementTree.parse(file).getroot()
        except ElementTree.ParseError as error:
            raise ValueError(error) from None
        return _parsed(root, file.parent)


def _metadata_file(path: Path) -> Path:
    """The file of metadata that ``path`` is or holds."""
    if path.is_file():
        if path.suffix.lower() != ".xml":
            raise InputError(
                f"{path}: expected the folder of a Level-2A product, found a file; unpack it and "
                "give the .SAFE folder"
            )
        return path
    for folder in ("", "*/", "*/*/"):  # archives often unpack into a folder of their own name
        files = [*path.glob(folder + METADATA), *path.glob(folder + OLD_METADATA)]
        if len(files) > 1:
            names = sorted(str(file.relative_to(path)) for file in files)
            raise InputError(f"{path}: expected one product, found the metadata {names}")
        if files:
            return files[0]
    if [*path.glob("MTD_MSIL1C.xml"), *path.glob("*/MTD_MSIL1C.xml")]:
        raise InputError(f"{path}: {_level_1c('MTD_MSIL1C.xml')}")
    raise InputError(
        f"{path}: no file {METADATA}; expected the .SAFE folder of a Level-2A product, as it was "
        "unpacked"
    )


def _level_1c(name: str) -> str:
    return (
        f"path {name!r}: expected a Level-2A product (reflectance of the ground), found Level-1C "
        "(top of the atmosphere); fetch the Level-2A product or make it with Sen2Cor"
    )


def _parsed(root: ElementTree.Element, folder: Path) -> Product:
    """Read the elements; raises ValueError or LookupError for one that is missing or wrong."""
    if "Level-1C" in root.tag:
        raise InputError(f"{folder}: {_level_1c(folder.name)}")
    start = datetime.fromisoformat(_text(root, "PRODUCT_START_TIME"))
    # Until 2018 elements of Level-2A had a prefix.
    quantity = float(_text(root, "BOA_QUANTIFICATION_VALUE", "L2A_BOA_QUANTIFICATION_VALUE"))
    if not quantity > 0:
        raise ValueError(f"BOA_QUANTIFICATION_VALUE {quantity}: expected a number above 0")
    offsets = {}
    for element in root.findall(".//{*}BOA_ADD_OFFSET"):
        offsets[BAND_OF_ID[int(element.attrib["band_id"])]] = float(str(element.text))
    if not offsets:
        _need_no_offset(root, folder)
    return Product(
        folder=folder,
        start=in_utc(start),
        scale=1 / quantity,
        offsets=offsets,
    )


def _need_no_offset(root: ElementTree.Element, folder: Path) -> None:
    """Raise ValueError unless the baseline is one whose products have no offset."""
    stated = baseline_of(root.findtext(".//{*}PROCESSING_BASELINE"))
    baseline = first_known([stated, baseline_in_name(folder.name)])
    if baseline is None:
        raise ValueError("neither BOA_ADD_OFFSET nor a PROCESSING_BASELINE such as 02.05")
    if has_offset(baseline):
        raise ValueError(
            f"baseline {baseline_text(baseline)} without BOA_ADD_OFFSET, which products have since "
            "04.00; fetch the product again"
        )


def _text(root: ElementTree.Element, *tags: str) -> str:
    """The text of the first element that is called by one of ``tags``."""
    for tag in tags:
        text = root.findtext(f".//{{*}}{tag}")
        if text is not None and text.strip():
            return text.strip()
    raise ValueError(f"no {tags[0]}")
