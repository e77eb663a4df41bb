"""How messages and the report say things."""

from collections.abc import Iterable

MAX_CHARACTERS = 200
"""Of a name: those of strange files may be any length. The middle of a longer one is left out."""


def name_first(names: Iterable[str], at_most: int = 5) -> str:
    """The first of many names, and how many more there are."""
    shown = [_shortened(name) for name in names]
    more = f" and {len(shown) - at_most:,} more" if len(shown) > at_most else ""
    separator = "; " if any("," in name for name in shown[:at_most]) else ", "
    return separator.join(shown[:at_most]) + more


def _shortened(name: str) -> str:
    half = MAX_CHARACTERS // 2
    return name if len(name) <= MAX_CHARACTERS else f"{name[:half]}…{name[-half:]}"
