"""Nothing in the repository unpickles: a pickle runs the code that it names when it is read."""

import ast

import pytest

from tests.paths import ROOT

MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
READERS = {"load", "loads", "open", "Unpickler"}
# Tests may send their own objects to their own processes.
OWN = {
    "tests/dist/processes.py",
    "tests/unit/data/shards/test_splits.py",
    "tests/unit/data/storage/test_cache.py",
    "tests/unit/data/stream/test_order.py",
    "tests/unit/data/stream/test_own_sensors.py",
}


def unpickles(source: str) -> list[int]:
    """Lines of a source that may read a pickle."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        imports = isinstance(node, ast.ImportFrom) and node.module in MODULES
        if imports or (isinstance(node, ast.Call) and _reads_pickles(node)):
            lines.append(node.lineno)
    return lines


def _reads_pickles(call: ast.Call) -> bool:
    """Whether a call is one of a pickle module, or of a library that reads pickles unless told."""
    name = ast.unparse(call.func)
    module, _, function = name.rpartition(".")
    options = {option.arg: ast.unparse(option.value) for option in call.keywords}
    if module in MODULES:
        return function in READERS
    if function == "read_pickle":
        return True
    if module == "torch" and function == "load":
        return options.get("weights_only") != "True"
    if module in ("np", "numpy") and function == "load":
        return options.get("allow_pickle", "False") != "False"
    return options.get("weights_only") == "False"  # of a library that passes it on to torch


def test_nothing_unpickles():
    tops = ("data", "engine", "models", "launch", "docs", "tests")
    files = [path for top in tops for path in (ROOT / top).rglob("*.py")]
    assert len(files) > 500
    found = {}
    for path in files:
        lines = unpickles(path.read_text())
        if lines:
            found[path.relative_to(ROOT).as_posix()] = lines
    found.pop("tests/unit/test_no_pickles.py", None)
    assert found.keys() == OWN, found


@pytest.mark.parametrize(
    "source",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "import pickle\npickle.load(file)",
        "from pickle import loads",
        "pickle.Unpickler(file).load()",
        "np.load(path, allow_pickle=True)",
        "pandas.read_pickle(path)",
        "load_state_dict(path, weights_only=False)",
    ],
)
def test_readers_of_pickles_are_found(source):
    assert unpickles(source)


@pytest.mark.parametrize(
    "source", ["torch.load(path, weights_only=True)", "np.load(path)", "json.load(file)", "load(a)"]
)
def test_others_are_not(source):
    assert not unpickles(source)
