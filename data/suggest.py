"""Help with misspelt names."""

import difflib
from collections.abc import Iterable


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that is most like ``name``; None if none is like it."""
    matches = difflib.get_close_matches(name, list(known), n=1)
    if not matches:
        return None
    return matches[0]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`` (did you mean 'x'?)`` for the nearest known name, otherwise nothing.

    For the middle of a message that lists the known names itself.
    """
    match = nearest(name, known)
    if match is None:
        return ""
    return f" (did you mean {match!r}?)"


def suggest(name: str, known: Iterable[str]) -> str:
    """``; did you mean "x"?`` for the nearest known name, otherwise the list of what is known.

    For the end of a message.
    """
    known = sorted(known)
    match = nearest(name, known)
    if match is None:
        return f"; known here: {', '.join(known)}"
    return f'; did you mean "{match}"?'
