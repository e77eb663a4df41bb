"""What a ledger is made of: the counts the stages write, rows, and equations that must hold."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, NotRequired, TypedDict

from semisup.tables import DataError


class ShardEntry(TypedDict):
    shard_id: int
    path: str
    size_bytes: int
    sha256: str
    num_samples: int


class Manifest(TypedDict):
    """manifest-{part}.json, written by index_shards and pack_selection."""

    dataset: str
    part: int
    samples_sha256: str
    max_pixels: int
    shards: list[ShardEntry]
    statuses: dict[str, int]


class ImageCounts(TypedDict):
    """images.json, written by count_images. ``num_best``: images each class is the best of.

    ``numerics``: every precision, device and version of torch that made scores.
    """

    num_samples: int
    statuses: dict[str, int]
    num_scored: int
    num_score_rows: NotRequired[int]
    num_best: list[int]
    numerics: NotRequired[list[str]]


class ClassSummary(TypedDict):
    """``num_wanted``: K of the class; the cut: of its last image, the logit where logits rank."""

    class_id: int
    class_name: str
    num_wanted: int
    num_images: int
    cut_log_odds: float | None
    cut_score: float | None
    cut_logit: float | None


class Summary(TypedDict):
    """summary.json, written by select."""

    selection_sha256: str
    num_rows: int
    num_distinct: int
    num_scored: int
    num_removed: NotRequired[int]
    num_not_drawn: int
    num_candidates: int
    removed: dict[str, int]
    classes: list[ClassSummary]


@dataclass(frozen=True)
class Term:
    name: str
    count: int


Side = Term | Iterable[Term]


class Equation(NamedTuple):
    """``left = right`` or ``left ≤ right``, each side a sum of named counts."""

    claim: str
    left: tuple[Term, ...]
    right: tuple[Term, ...]
    relation: Literal["=", "≤"] = "="

    @property
    def sums(self) -> tuple[int, int]:
        return sum(term.count for term in self.left), sum(term.count for term in self.right)

    @property
    def holds(self) -> bool:
        left, right = self.sums
        return left == right if self.relation == "=" else left <= right


def equal(claim: str, left: Side, right: Side) -> Equation:
    return Equation(claim, _terms(left), _terms(right))


def at_most(claim: str, left: Side, right: Side) -> Equation:
    return Equation(claim, _terms(left), _terms(right), "≤")


def _terms(side: Side) -> tuple[Term, ...]:
    return (side,) if isinstance(side, Term) else tuple(side)


@dataclass(frozen=True)
class Row:
    """A line of the ledger. ``loss`` is taken from the ``total`` above it; ``use`` counts something
    other than samples of U. ``note`` says more in words."""

    name: str
    count: int
    kind: Literal["total", "loss", "use"]
    note: str = ""


@dataclass(frozen=True)
class Ledger:
    rows: list[Row]
    equations: list[Equation]

    def __add__(self, other: "Ledger") -> "Ledger":
        return Ledger(self.rows + other.rows, self.equations + other.equations)


def prove(where: str, equations: Iterable[Equation]) -> None:
    """Raise DataError naming the equations that do not hold and both their numbers."""
    broken = [equation for equation in equations if not equation.holds]
    if broken:
        lines = "\n".join(
            f"  {equation.claim}: {_side(equation.left)} {equation.relation} {_side(equation.right)}"
            f" does not hold: {equation.sums[0]:,} and {equation.sums[1]:,}"
            for equation in broken
        )
        raise DataError(
            f"the books of {where} do not balance:\n{lines}\n"
            "Some sample was lost or counted twice. Delete the results of the stage named above and "
            "run again; if it stays, it is a bug."
        )


def _side(terms: Sequence[Term]) -> str:
    return " + ".join(f"{term.count:,} {term.name}" for term in terms) or "0"
