"""The measurement of a preparation of many tiles, at a small size."""

from data.bench.many_tiles import measure
from data.tiles.archive import tile_keys


def test_it_prepares_and_counts(tmp_path):
    figures = measure(tmp_path, 12, workers=0, say=lambda line: None)
    assert len(tile_keys(tmp_path / "archive")) == figures["tiles"] == 12
    files = [path for path in (tmp_path / "archive").rglob("*") if path.is_file()]
    assert figures["files_a_tile"] == round(len(files) / 12, 2)
    assert figures["report_a_tile"] > 100
