"""Labels from CSV files, and the division of items into parts."""

import re

import pytest
import torch

from data.errors import InputError
from engine.evaluate.items import Items, cell_items, parts, tile_items
from engine.evaluate.labels import read_labels


def written(folder, content):
    path = folder / "labels.csv"
    path.write_text(content)
    return path


def test_a_file_is_read(tmp_path):
    path = written(tmp_path, "\ufeffsize,key,label,split,group\n3,a,wood,train,g\n4,b,sea,val,\n")
    labels = read_labels(path)
    assert labels.classes == ["sea", "wood"]
    assert not labels.several
    assert labels.has_groups
    assert labels.of["a"].classes == ("wood",)
    assert labels.of["a"].split == "train"
    assert labels.of["b"].split == "validation"
    several = read_labels(written(tmp_path, "key,label\na,wood; sea\nb,\n"))
    assert several.several
    assert several.of["a"].classes == ("wood", "sea")
    assert several.of["b"].classes == ()
    assert not several.has_groups


@pytest.mark.parametrize(
    "content, line",
    [
        ("key,class\na,b\n", "expected the columns key,label[,split][,group], found key,class"),
        ("", "found an empty file"),
        ("key,label\n", "expected a line for each tile, found none"),
        ("key,label\na,b\na,c\n", "line 3: the key 'a' stands twice"),
        ("key,label,split\na,b,dev\n", "line 2: split: expected one of train"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path, content, line):
    with pytest.raises(InputError, match=re.escape(line)):
        read_labels(written(tmp_path, content))
    with pytest.raises(InputError, match="no such file"):
        read_labels(tmp_path / "other.csv")


def made(splits: list[str], groups: list[str]) -> Items:
    names = [("a",) if number % 2 else ("b",) for number in range(len(splits))]
    return tile_items(names, ["a", "b"], several=False, groups=groups, splits=splits)


def test_folds_test_every_item_once_and_keep_groups_together():
    groups = [f"g{number // 3}" for number in range(60)]
    items = made(["train"] * 60, groups)
    divided = parts(items, seed=4, folds=5)
    assert torch.cat([fold.test for fold in divided]).sort().values.tolist() == list(range(60))
    for fold in divided:
        sides = [set(items.groups[part].tolist()) for part in (fold.train, fold.validation)]
        sides.append(set(items.groups[fold.test].tolist()))
        assert sum(map(len, sides)) == len(set.union(*sides)) == items.group_count
    other = parts(items, seed=5, folds=5)
    assert not torch.equal(other[0].test, divided[0].test)
    again = parts(items, seed=4, folds=5)
    assert torch.equal(again[0].validation, divided[0].validation)


def test_named_parts_are_kept():
    splits = ["train"] * 10 + ["validation"] * 3 + ["test"] * 2
    items = made(splits, [str(number) for number in range(15)])
    (only,) = parts(items, seed=0, folds=0)
    assert only.train.tolist() == list(range(10))
    assert only.validation.tolist() == [10, 11, 12]
    assert only.test.tolist() == [13, 14]


def test_a_fifth_of_the_train_groups_validates_where_nobody_names_a_part():
    items = made(["train"] * 20 + ["test"] * 5, [str(number // 2) for number in range(25)])
    (only,) = parts(items, seed=0, folds=0)
    assert len(only.validation) == 4
    assert only.test.tolist() == list(range(20, 25))
    assert len(only.train) == 16


def test_an_empty_part_is_refused():
    items = made(["train"] * 6, [str(number) for number in range(6)])
    with pytest.raises(InputError, match="expected items in every part, found 5 train, 1 valid"):
        parts(items, seed=0, folds=0)


def test_cells_are_items_and_classes_without_a_cell_are_left_out():
    labels = torch.tensor([[[4, -1], [4, 2]], [[-1, -1], [2, -1]]])
    items = cell_items(labels, list("abcde"), groups=["x", "y"], splits=["train", "test"])
    assert items.classes == ["c", "e"]
    assert items.tiles.tolist() == [0, 0, 0, 1]
    assert items.cells.tolist() == [0, 2, 3, 2]
    assert items.targets.argmax(1).tolist() == [1, 1, 0, 0]
    assert items.groups.tolist() == [0, 0, 0, 1]
    cells = torch.arange(8.0).view(2, 2, 2, 1)
    assert items.rows(torch.zeros(2, 1), cells)[:, 0].tolist() == [0, 2, 3, 6]
    with pytest.raises(InputError, match="expected labels, found none in the shards"):
        cell_items(torch.full((2, 2, 2), -1), ["a"], groups=["x", "y"], splits=["train"] * 2)
