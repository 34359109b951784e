"""What is kept for last words is really there, and is given back."""

import os

from engine.resilience.room import Room


def test_room_is_kept_on_the_disk_until_it_is_needed(tmp_path):
    room = Room(tmp_path, rank=3)
    room.keep()
    files = list(tmp_path.iterdir())
    assert len(files) == 4
    used = sum(512 * os.stat(file).st_blocks for file in files)
    assert used >= 4 * 2**14
    room.free()
    assert list(tmp_path.iterdir()) == []
    room.free()  # by another thread
