"""Files that are whole or not there, and the refusal of a place where none can be written."""

import pytest

from data.errors import InputError
from data.jobs.whole_file import check_place, write_whole
from tests.commands import script


def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "page.html"
    write_whole(path, "é\n")
    with pytest.raises(UnicodeEncodeError):
        write_whole(path, "half of it \ud800")  # no file can hold half a surrogate pair
    assert path.read_bytes() == "é\n".encode()
    write_whole(path, "new")
    assert path.read_text() == "new" and [found.name for found in tmp_path.iterdir()] == [
        "page.html"
    ]


def test_a_place_that_cannot_hold_a_file_is_refused(tmp_path):
    check_place("--out", tmp_path / "new.json")
    for path in (tmp_path, tmp_path / "nowhere" / "new.json"):
        with pytest.raises(
            InputError, match="--out: expected the name of a file in a folder that exists"
        ):
            check_place("--out", path)


@pytest.mark.parametrize(
    "command",
    [
        ("list_classes.py", "--out"),
        ("bench_codecs.py", "archive", "--json"),
        ("bench_data.py", "--work", "bench", "--json"),
    ],
)
def test_commands_refuse_it_before_the_work(command, tmp_path):
    done = script(*command, tmp_path / "nowhere" / "file")
    assert (
        done.returncode == 2
        and done.stderr.startswith("error: ")
        and len(done.stderr.splitlines()) == 1
    )
    assert "in a folder that exists" in done.stderr
