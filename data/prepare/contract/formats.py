"""Names for files of another format, by their first bytes: for errors that help."""

from pathlib import Path

CONVERT = "convert it with: nccopy -k netCDF-4 {name} new.nc"
TIFF = "a TIFF; use a reader of GeoTIFF"
# First bytes -> what the file is, and what to do.
FORMATS = {
    b"CDF\x01": f"NetCDF-3 (classic); {CONVERT}",
    b"CDF\x02": f"NetCDF-3 (classic, 64-bit offset); {CONVERT}",
    b"CDF\x05": f"NetCDF-3 (64-bit data, CDF-5); {CONVERT}",
    b"\x0e\x03\x13\x01": "HDF4; convert it with: h4toh5 {name}",
    b"GRIB": "GRIB; convert it with: cdo -f nc4 copy {name} new.nc",
    b"II*\x00": TIFF,
    b"MM\x00*": TIFF,
    b"\x1f\x8b": "a gzip file; unpack it with: gunzip {name}",
    b"PK\x03\x04": "a zip file; unpack it with: unzip {name}",
    b"version https://git-lfs": "a pointer of Git LFS; fetch the file with: git lfs pull",
    b"<!DOCTYPE": "a web page, perhaps of a log-in; fetch the file again",
    b"<html": "a web page, perhaps of a log-in; fetch the file again",
    b"<?xml": "an XML document, perhaps a server's error; fetch the file again",
}


def other_format(path: object) -> str:
    """What the file at ``path`` is and what to do; empty when its first bytes are not known."""
    if not isinstance(path, Path) or not path.is_file():
        return ""
    with path.open("rb") as file:
        start = file.read(max(len(magic) for magic in FORMATS))
    if not start:
        return "an empty file; fetch it again"
    for magic, name in FORMATS.items():
        if start.startswith(magic):
            return name.format(name=path.name)
    return ""
