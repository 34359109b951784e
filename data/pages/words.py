"""Numbers in words for pages and messages."""


def number_of(number: int, noun: str) -> str:
    """A number with its noun, in the plural unless it is 1: "1 sample", "2,000 samples"."""
    if number == 1:
        return f"1 {noun}"
    return f"{number:,} {noun}s"
