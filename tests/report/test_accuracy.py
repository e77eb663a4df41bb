import math

from hypothesis import given
from hypothesis import strategies as st

from semisup.config import Config
from semisup.metrics import wilson_interval
from semisup.report.accuracy import make_axis, model_order, students
from semisup.report.comparison import Accuracy

shares = st.tuples(st.integers(0, 50), st.integers(50, 100))


@given(st.lists(shares, min_size=1, max_size=6))
def test_an_axis_holds_all_intervals_between_round_ticks(found: list[tuple[int, int]]) -> None:
    accuracies = [Accuracy(hits / n, *wilson_interval(hits, n), n) for hits, n in found]
    axis = make_axis(accuracies)
    assert axis.low <= min(a.low for a in accuracies) + 1e-9
    assert axis.high >= max(a.high for a in accuracies) - 1e-9
    assert 2 <= len(axis.ticks) <= 7
    assert 0 <= axis.place(axis.ticks[0]) < axis.place(axis.ticks[-1]) <= 100


def test_an_axis_without_measurements_goes_from_nothing_to_all() -> None:
    axis = make_axis([Accuracy(math.nan, 0.0, 1.0, 0)])
    assert (axis.low, axis.high) == (0.0, 1.0)


def test_models_stand_after_their_teachers_and_baselines_after_their_students() -> None:
    train = {"on": "labeled", "recipe": "r"}
    config = Config.model_validate(
        {
            "datasets": {name: {"shards": "a.tar"} for name in ("labeled", "unlabeled")},
            "models": {
                "a_student": {"arch": "x", "pretrain": {"on": "second", "recipe": "r"}},
                "b_baseline": {"baseline_of": "c_student", "train": train},
                "c_student": {"arch": "x", "pretrain": {"on": "first", "recipe": "r"}},
                "d_teacher": {"arch": "x", "train": train},
            },
            "selections": {
                "first": {"teacher": "d_teacher", "unlabeled": "unlabeled", "images_per_class": 1},
                "second": {"teacher": "c_student", "unlabeled": "unlabeled", "images_per_class": 1},
            },
            "recipes": {"r": {"images": 1}},
            "evaluate": {"on": ["labeled"]},
        }
    )
    assert model_order(config) == ["d_teacher", "c_student", "b_baseline", "a_student"]
    assert students(config) == ["c_student", "a_student"]
