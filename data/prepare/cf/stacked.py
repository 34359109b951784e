"""Bands along an axis of one variable, as xarray writes stacks: each one as if it stood alone.

The axis has a coordinate variable of texts, which are the names of the bands.
"""

from collections.abc import Iterator
from typing import Any

from data.prepare.cf.variable import BandLayer, Group, Variable
from data.prepare.contract.files import File, reading

TEXTS = "OSUT"  # kinds of numpy's types


class StackedGroup:
    """A group in which the bands of stacks are arrays of their own, beside all that it holds.

    A name that stands for an array already, or for bands of two stacks, is left as it is.

    Args:
        path: the file, for errors.
        group: an open h5py file or zarr group that can be listed.
    """

    def __init__(self, path: File, group: Group):
        self.group = group
        self.bands: dict[str, BandLayer] = {}
        with reading(path, "a list of variables"):
            arrays = {name: group[name] for name in group}
        twice = set(arrays)
        for name, array in arrays.items():
            for label, layer in _layers(Variable(path, name, array), arrays):
                if label in self.bands:
                    twice.add(label)
                self.bands[label] = layer
        for label in twice & set(self.bands):
            del self.bands[label]

    @property
    def attrs(self) -> Any:
        """The group's own attributes."""
        return self.group.attrs

    def __contains__(self, name: str) -> bool:
        return name in self.bands or name in self.group

    def __getitem__(self, name: str) -> Any:
        if name in self.bands:
            return self.bands[name]
        return self.group[name]

    def __iter__(self) -> Iterator[str]:
        yield from self.group
        yield from self.bands


def _layers(variable: Variable, arrays: dict[str, Any]) -> Iterator[tuple[str, BandLayer]]:
    """The layers of a variable along an axis of names; none without one."""
    if len(getattr(variable.array, "shape", ())) < 3:
        return
    for position, axis in enumerate(variable.axes or ()):
        labels = arrays.get(axis)
        if labels is None or getattr(labels, "ndim", 0) != 1 or labels.dtype.kind not in TEXTS:
            continue
        texts = Variable(variable.path, axis, labels).read()
        for index, text in enumerate(texts):
            name = text.decode() if isinstance(text, bytes) else str(text)
            yield name, BandLayer(variable.array, position, index)
        return


def with_stacks(path: File, group: Group) -> Group:
    """The group with the bands of its stacks; the group itself where it cannot be listed."""
    with reading(path, "a list of variables"):
        names = list(group)
    if not names:
        return group
    stacked = StackedGroup(path, group)
    if stacked.bands:
        return stacked
    return group
