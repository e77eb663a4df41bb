"""Reading again what a disk or a network file system may give the next time."""

import errno
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

WAITS = (0.1, 1.0)
"""Seconds before the second and the third try."""

PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "ETIMEDOUT", "EAGAIN", "EREMOTEIO", "ECONNRESET", "EHOSTDOWN")
    if hasattr(errno, name)
)
"""Errors that may pass; a missing file or permission does not come back."""

_given_up: set[str] = set()


def retry(read: Callable[[], T], path: str) -> T:
    """What ``read`` returns; after an OSError that may pass it is called again, twice at most.

    Once in vain, the same file is not waited for again: thousands of its samples may be to come.
    Raises the last OSError.
    """
    for seconds in () if path in _given_up else WAITS:
        try:
            return read()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        time.sleep(seconds)
    try:
        return read()
    except OSError as error:
        if error.errno in PASSING:
            _given_up.add(path)
        raise
