"""Nested objects as tables."""

from engine.config.flat import flat


def test_places_are_dotted_and_lists_and_empty_objects_are_values():
    content = {"a": {"b": {"c": 1}, "d": [2, 3]}, "e": {}, "f": None}
    assert flat(content) == {"a.b.c": 1, "a.d": [2, 3], "e": {}, "f": None}
