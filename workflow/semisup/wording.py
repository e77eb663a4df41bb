"""How messages and the report say things."""

from collections.abc import Iterable

MAX_CHARACTERS = 80
"""Of a name: those of strange files may be any length."""


def name_first(names: Iterable[str], at_most: int = 5) -> str:
    """The first of many names, and how many more there are."""
    shown = [name[:MAX_CHARACTERS] for name in names]
    more = f" and {len(shown) - at_most:,} more" if len(shown) > at_most else ""
    separator = "; " if any("," in name for name in shown[:at_most]) else ", "
    return separator.join(shown[:at_most]) + more
