import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.progress import Progress, duration


class Clock:
    """A clock that stands still until told otherwise."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (3.4, "3 s"),
        (59.4, "59 s"),
        (59.6, "1:00"),
        (60, "1:00"),
        (123, "2:03"),
        (3599.9, "1:00:00"),
        (3723, "1:02:03"),
        (360_000, "100:00:00"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@given(st.integers(0, 10**7))
def test_a_duration_says_all_its_seconds(seconds: int) -> None:
    parts = duration(seconds).removesuffix(" s").split(":")
    assert sum(int(part) * 60**i for i, part in enumerate(reversed(parts))) == seconds
    assert all(len(part) == 2 for part in parts[1:])


def test_a_line_says_share_rate_and_time_left() -> None:
    line = Progress("score", 4_000, clock=Clock()).line(1_000, 10.0)
    assert line == "score 1,000/4,000 images  25%  100 images/s  30 s left"


def test_a_finished_line_says_done() -> None:
    assert Progress("score", 10, clock=Clock()).line(10, 2.0).endswith("100%  5 images/s  done")


def test_what_was_done_before_a_restart_does_not_count_for_the_rate() -> None:
    line = Progress("train", 1_000, start=900, clock=Clock()).line(950, 10.0)
    assert line == "train 950/1,000 images  95%  5 images/s  10 s left"


def test_without_a_rate_no_time_left_is_guessed() -> None:
    assert Progress("train", 10, clock=Clock()).line(0, 7.0) == "train 0/10 images   0%  0 images/s"


def test_nothing_to_do_is_all_done() -> None:
    assert Progress("score", 0, clock=Clock()).line(0, 0.0).endswith("100%  0 images/s  done")


def test_a_detail_comes_last() -> None:
    assert Progress("train", 10, clock=Clock()).line(10, 1.0, "loss 0.1").endswith("done  loss 0.1")


@given(
    st.integers(0, 10**12),
    st.integers(0, 10**12),
    st.floats(0, 1e9, allow_nan=False, allow_subnormal=False),
)
def test_any_progress_is_one_line(done: int, total: int, seconds: float) -> None:
    assert "\n" not in Progress("x", total, clock=Clock()).line(min(done, total), seconds)


def test_lines_come_at_most_every_few_seconds_and_at_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "semisup")
    clock = Clock()
    progress = Progress("x", 102, every_seconds=5, clock=clock)
    for done in range(1, 103):
        clock.now += 1
        progress.update(done)
    shown = [line.split()[1] for line in caplog.messages]
    assert shown == [f"{i}/102" for i in [*range(5, 101, 5), 102]]


def test_short_work_logs_its_end_alone(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "semisup")
    clock = Clock()
    progress = Progress("x", 3, clock=clock)
    for done in (1, 2, 3):
        clock.now += 1
        progress.update(done, f"loss {done}")
    assert caplog.messages == ["x 3/3 images 100%  1 images/s  done  loss 3"]
