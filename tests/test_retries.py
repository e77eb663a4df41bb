import errno
import time

import pytest

from semisup import retries
from semisup.images import ImageError
from semisup.retries import retry
from semisup.samples import read_range

UNREADABLE = "/proc/self/mem"  # its first page: a real EIO


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "WAITS", (0.01, 0.01))
    monkeypatch.setattr(retries, "_given_up", set())


def failing(times: int, number: int = errno.EIO):
    calls = []

    def read() -> str:
        calls.append(1)
        if len(calls) <= times:
            raise OSError(number, "no")
        return "content"

    return read, calls


def test_an_error_that_passes_is_not_noticed() -> None:
    read, calls = failing(2)
    assert retry(read, "a.tar") == "content"
    assert len(calls) == 3


def test_an_error_that_stays_is_raised_and_the_file_not_waited_for_again() -> None:
    read, calls = failing(9)
    for tries in (3, 4, 5):
        with pytest.raises(OSError, match="no"):
            retry(read, "a.tar")
        assert len(calls) == tries


def test_a_missing_file_is_not_waited_for() -> None:
    read, calls = failing(9, errno.ENOENT)
    with pytest.raises(OSError, match="no"):
        retry(read, "a.tar")
    assert len(calls) == 1


def test_an_image_that_cannot_be_read_fails_with_its_kind() -> None:
    with pytest.raises(ImageError, match="Input/output error") as caught:
        read_range(UNREADABLE, 0, 10)
    assert caught.value.kind == "read_error"
    start = time.monotonic()
    for offset in range(100):  # a whole broken tar costs one wait
        with pytest.raises(ImageError):
            read_range(UNREADABLE, offset, 10)
    assert time.monotonic() - start < 5
