"""Files and folders that are whole or not there, and the refusal of a place for none."""

import pytest

from data.errors import InputError
from data.files import check_place, publish_folder, whole_file, write_durable, write_whole
from tests.commands import skysense


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("durable", [False, True])
def test_an_old_file_stays_until_the_new_one_is_whole(tmp_path, durable):
    path = tmp_path / "page.html"
    write_whole(path, "é\n", durable=durable)
    with pytest.raises(UnicodeEncodeError):
        # no file can hold half a surrogate pair
        write_whole(path, "half of it \ud800", durable=durable)
    assert path.read_bytes() == "é\n".encode()
    write_whole(path, b"new", durable=durable)
    assert path.read_text() == "new"
    assert names(tmp_path) == ["page.html"]


def test_a_block_writes_under_another_name(tmp_path):
    path = tmp_path / "a.tar"
    path.write_text("old")
    with whole_file(path) as scratch:
        scratch.write_text("new")
        assert path.read_text() == "old"
        assert names(tmp_path) == ["a.tar", "a.tar.partial"]
    assert path.read_text() == "new"
    assert names(tmp_path) == ["a.tar"]


def test_an_error_in_the_block_leaves_the_old_file_alone(tmp_path):
    path = tmp_path / "a.tar"
    path.write_text("old")
    scratch = tmp_path / "other"

    def write_half():
        with whole_file(path, scratch=scratch):
            scratch.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.tar"]


def test_a_durable_file_holds_what_was_given(tmp_path):
    write_durable(tmp_path / "text", "é")
    write_durable(tmp_path / "bytes", b"\0")
    assert (tmp_path / "text").read_bytes() == "é".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\0"


def test_a_folder_takes_the_place_of_an_older_one(tmp_path):
    staging = tmp_path / "staging"
    folder = tmp_path / "folder"
    aside = tmp_path / "aside"
    for number in range(3):
        staging.mkdir()
        (staging / "number").write_text(str(number))
        publish_folder(staging, folder, aside=aside)
    assert (folder / "number").read_text() == "2"
    assert (aside / "number").read_text() == "1"
    assert names(tmp_path) == ["aside", "folder"]


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
        ("classes", "--out"),
        ("bench", "codecs", "archive", "--json"),
        ("bench", "data", "--work", "bench", "--json"),
    ],
)
def test_commands_refuse_it_before_the_work(command, tmp_path):
    done = skysense(*command, tmp_path / "nowhere" / "file")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.splitlines()) == 1
    assert "in a folder that exists" in done.stderr
