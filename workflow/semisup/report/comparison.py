"""Did the student beat its budget-matched baseline? The answer in numbers and in a sentence."""

import math
from typing import NamedTuple

import numpy as np


class Accuracy(NamedTuple):
    """Top-1 of one stage of a model on one evaluation set, with its 95 % interval."""

    top1: float
    low: float
    high: float
    num_images: int


class Pairs(NamedTuple):
    """Images both models were measured on, by which of them got each right."""

    both: int
    only_student: int
    only_baseline: int
    neither: int

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how likely so uneven a split is if the models are equally good."""
        return binomial_p(self.only_student, self.only_baseline)


class Comparison(NamedTuple):
    student: str
    student_stage: str
    baseline: str
    baseline_stage: str
    dataset: str
    of_student: Accuracy
    of_baseline: Accuracy
    pairs: Pairs

    @property
    def points(self) -> float:
        """Percentage points the student is ahead."""
        return 100 * (self.of_student.top1 - self.of_baseline.top1)

    @property
    def overlap(self) -> bool:
        return (
            self.of_student.low <= self.of_baseline.high
            and self.of_baseline.low <= self.of_student.high
        )

    @property
    def by_chance(self) -> bool:
        return self.pairs.p_value >= 0.05

    @property
    def uncertain(self) -> bool:
        """Whether there is a difference that may be chance."""
        return self.by_chance and self.points != 0 and not math.isnan(self.points)

    @property
    def verdict(self) -> str:
        """A verb between student and baseline; only a difference beyond chance beats or loses."""
        if math.isnan(self.points):
            return "could not be compared with"
        if self.points == 0:
            return "matched"
        if self.points > 0:
            return "came out ahead of" if self.by_chance else "beat"
        return "came out behind" if self.by_chance else "lost to"

    @property
    def confidence(self) -> str:
        """What the intervals and the paired test allow to say about the difference."""
        if math.isnan(self.points):
            return "one of the two was measured on no image"
        intervals = f"the 95 % intervals {'overlap' if self.overlap else 'do not overlap'}"
        if self.by_chance:
            return f"{intervals} {'and' if self.overlap else 'but'} the difference may be chance"
        joint = ", but" if self.overlap else " and"
        return f"{intervals}{joint} the paired comparison tells the two apart"


def compare_hits(student_hits: np.ndarray, baseline_hits: np.ndarray) -> Pairs:
    """Counts from whether each model was right on each image, both in the same order."""
    student, baseline = student_hits.astype(bool), baseline_hits.astype(bool)
    return Pairs(
        both=int((student & baseline).sum()),
        only_student=int((student & ~baseline).sum()),
        only_baseline=int((~student & baseline).sum()),
        neither=int((~student & ~baseline).sum()),
    )


def binomial_p(first: int, second: int) -> float:
    """Two-sided exact p-value of a split of ``first + second`` fair coin tosses."""
    tosses, fewer = first + second, min(first, second)
    if first == second:
        return 1.0
    logs = [
        math.lgamma(tosses + 1) - math.lgamma(k + 1) - math.lgamma(tosses - k + 1)
        for k in range(fewer + 1)
    ]
    largest = max(logs)
    tail = math.fsum(math.exp(value - largest) for value in logs)
    return min(1.0, math.exp(math.log(2 * tail) + largest - tosses * math.log(2)))


def headline(comparisons: list[Comparison], num_measured: int) -> str:
    """The sentence at the top of the page."""
    if not comparisons:
        if num_measured == 0:
            return "Nothing was measured: no model predicts the classes of the evaluation sets."
        return "No student has a baseline, so what the unlabelled images brought is not measured."
    if len({(c.student, c.baseline) for c in comparisons}) > 1:
        better = sum(c.verdict == "beat" for c in comparisons)
        number = {0: "none of", len(comparisons): "all"}.get(better, f"{better} of")
        return (
            f"Students beat their budget-matched baselines, beyond chance, in {number} "
            f"{len(comparisons)} comparisons."
        )
    by_verdict: dict[str, list[Comparison]] = {}
    for comparison in sorted(comparisons, key=lambda c: c.by_chance):
        by_verdict.setdefault(comparison.verdict, []).append(comparison)
    clauses = []
    for i, (verdict, same) in enumerate(by_verdict.items()):
        baseline = "it" if i else "its budget-matched baseline"
        places = " and ".join(f"on {c.dataset}{_by(c)}" for c in same)
        chance = ", which may be chance" if same[0].uncertain else ""
        clauses.append(f"{verdict} {baseline} {places}{chance}")
    return f"The student {', and '.join(clauses)}."


def _by(comparison: Comparison) -> str:
    if math.isnan(comparison.points) or comparison.points == 0:
        return ""
    return f" by {points(abs(comparison.points))}"


def points(value: float) -> str:
    return f"{value:.1f} point" if f"{value:.1f}" == "1.0" else f"{value:.1f} points"


def p_text(p_value: float) -> str:
    """``p = 0.031``, or a power of ten where it is smaller than anyone needs."""
    if p_value >= 0.001:
        return f"p = {p_value:.2g}"
    if p_value < 1e-300:
        return "p < 10⁻³⁰⁰"
    digits, exponent = f"{p_value:.1e}".split("e")
    superscript = str(int(exponent)).translate(str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"))
    return f"p = {digits} × 10{superscript}"
