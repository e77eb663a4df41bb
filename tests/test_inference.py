"""From logits to the best classes and their log-odds."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from semisup.inference import label_ranks, top_classes

logits = st.lists(st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5), min_size=1)


@given(logits)
def test_log_odds_are_those_of_the_softmax_in_double_precision(values):
    top = top_classes(torch.tensor(values), 3)
    p = torch.tensor(values).double().softmax(1)
    others = torch.stack([p.sum(1) - p[:, c] for c in range(5)], 1)
    for c in range(5):  # without the class itself, where 1 - p would cancel
        others[:, c] = p[:, [i for i in range(5) if i != c]].sum(1)
    exact = (p.log() - others.log()).gather(1, top.class_ids_NP)
    torch.testing.assert_close(top.log_odds_NP.double(), exact, rtol=1e-5, atol=1e-4)


def test_log_odds_stay_apart_where_the_float32_softmax_is_one():
    top = top_classes(torch.tensor([[30.0, 0, 0], [40.0, 0, 0]]), 1)
    assert torch.tensor([[30.0, 0, 0], [40.0, 0, 0]]).softmax(1)[:, 0].tolist() == [1, 1]
    assert top.log_odds_NP[0, 0] < top.log_odds_NP[1, 0]


def test_equal_logits_rank_by_class_id():
    assert top_classes(torch.zeros(2, 6), 6).class_ids_NP.tolist() == [[0, 1, 2, 3, 4, 5]] * 2


def test_fewer_stored_classes_are_a_prefix_of_more():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 12))).float()
    more, fewer = top_classes(values, 10), top_classes(values, 4)
    assert torch.equal(more.class_ids_NP[:, :4], fewer.class_ids_NP)
    assert torch.equal(more.log_odds_NP[:, :4], fewer.log_odds_NP)


def test_logits_come_back_from_log_odds_and_logsumexp():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=(50, 12)) * 5).float()
    top = top_classes(values, 12)
    log_p = torch.nn.functional.logsigmoid(top.log_odds_NP)
    restored = log_p + top.logsumexp_N[:, None]
    torch.testing.assert_close(restored, values.gather(1, top.class_ids_NP), rtol=1e-4, atol=1e-4)


def test_the_rank_of_the_label_counts_the_classes_before_it():
    logits = torch.tensor([[0.1, 0.9, 0.5], [0.1, 0.9, 0.5]])
    assert label_ranks(logits, torch.tensor([1, 0])).tolist() == [1, 3]


def test_equal_logits_put_the_lower_class_first_as_argmax_does():
    logits = torch.zeros(3, 3)
    assert label_ranks(logits, torch.tensor([0, 1, 2])).tolist() == [1, 2, 3]
