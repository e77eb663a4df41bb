"""Progress lines for long work: share done, rate, time left."""

import logging
import time
from collections.abc import Callable

log = logging.getLogger("semisup")


class Progress:
    """Logs at most one line every ``every_seconds`` and one at the end.

    ``flops``: operations for one image, shown as a rate, and as a share of ``peak`` per second.
    """

    def __init__(
        self,
        what: str,
        total: int,
        start: int = 0,
        flops: int = 0,
        peak: float | None = None,
        every_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.start = what, total, start
        self.flops, self.peak = flops, peak
        self.every_seconds, self.clock = every_seconds, clock
        self.began = self.shown = clock()

    def update(self, done: int, detail: str = "") -> None:
        """``done``: images so far, of ``total``."""
        now = self.clock()
        if done < self.total and now - self.shown < self.every_seconds:
            return
        self.shown = now
        log.info(self.line(done, now - self.began, detail))

    def rate(self, done: int) -> float:
        """Images per second since the start."""
        return (done - self.start) / max(self.clock() - self.began, 1e-9)

    def line(self, done: int, seconds: float, detail: str = "") -> str:
        rate = (done - self.start) / max(seconds, 1e-9)
        share = done / self.total if self.total else 1.0
        text = f"{self.what} {done:,}/{self.total:,} images {share:4.0%}  {rate:,.0f} images/s"
        if done >= self.total:
            text += "  done"
        elif rate > 0:
            text += f"  {duration((self.total - done) / rate)} left"
        if self.flops:
            text += f"  {rate * self.flops / 1e12:.3g} TFLOP/s"
        if self.flops and self.peak:
            text += f" ({rate * self.flops / self.peak:.0%} of the peak)"
        return f"{text}  {detail}" if detail else text


def duration(seconds: float) -> str:
    """``1:02:03``, ``2:03`` or ``3 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
