"""A data cube of the scene."""

import h5py
import numpy as np

from tests.unit.data.prepare.readers.scene import (
    BANDS,
    LEFT,
    SCENE,
    TOP,
    UTM,
    clouds,
    numbers,
)


def fill_cube(group, rising: bool, days: list[int], text=str, names=("time", "y", "x")) -> None:
    """A cube of all bands at 10 m in an h5py file or zarr group; the frame of day d is d higher."""

    def put(name, array, **attributes):
        made = (
            group.create_dataset(name, data=array)
            if isinstance(group, h5py.File)
            else group.create_array(name, data=np.ascontiguousarray(array))
        )
        made.attrs.update(attributes)

    order = slice(None, None, -1) if rising else slice(None)
    centres = np.arange(SCENE) * 10 + 5.0
    put(
        names[0],
        np.array(days),
        units=text("hours since 2019-12-31 12:00:00"),
        calendar=text("standard"),
    )
    put(names[1], (TOP - centres)[order])
    put(names[2], LEFT + centres)
    put(
        "crs",
        np.int32(0).reshape(()) if isinstance(group, h5py.File) else np.zeros(1, np.int32),
        crs_wkt=text(UTM.to_wkt()),
    )
    for band in BANDS:
        plane = numbers(band, SCENE)[order].astype(np.int16)
        put(
            f"rho_{band}",
            np.stack([plane + day for day in days]),
            grid_mapping=text("crs"),
            scale_factor=1e-4,
            add_offset=0.0,
            _FillValue=-999,
        )
    scene = clouds()[0].repeat(2, 0).repeat(2, 1)[order]
    put("scl", np.stack([scene] + [np.full_like(scene, 4)] * (len(days) - 1)))
