"""Learning rates as functions of images processed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semisup.checks import read_presets
from semisup.config import Recipe
from semisup.optim import learning_rate


def recipe(**keys: object) -> Recipe:
    return Recipe.model_validate({"images": 1000, "global_batch_size": 256, **keys})


def preset(name: str) -> Recipe:
    return Recipe.model_validate(read_presets()[name])


def test_the_papers_pretraining_rises_to_the_scaled_rate_and_is_halved_13_times():
    paper = preset("paper_pretrain")
    assert learning_rate(paper, 0) == pytest.approx(0.1)
    peak = 0.1 / 256 * 1536
    assert learning_rate(paper, paper.warmup_images) == pytest.approx(peak)
    assert learning_rate(paper, paper.images - 1) == pytest.approx(peak / 2**13)


def test_the_papers_finetuning_starts_scaled_and_is_cut_to_a_tenth_3_times():
    paper = preset("paper_finetune")
    start = 0.00025 / 256 * 1536
    middles = [learning_rate(paper, paper.images * i // 8) for i in (1, 3, 5, 7)]
    assert middles == pytest.approx([start, start / 10, start / 100, start / 1000])


def test_cuts_are_equally_spaced():
    step = recipe(schedule="step", decay_factor=0.5, num_decays=3, base_lr=0.8)
    assert [learning_rate(step, i) for i in (0, 249, 250, 500, 750, 999)] == pytest.approx(
        [0.8, 0.8, 0.4, 0.2, 0.1, 0.1]
    )


def test_cosine_falls_from_the_full_rate_to_zero():
    cosine = recipe(schedule="cosine", base_lr=0.4, warmup_images=200)
    assert learning_rate(cosine, 200) == pytest.approx(0.4)
    assert learning_rate(cosine, 600) == pytest.approx(0.2)
    assert learning_rate(cosine, 1000) == pytest.approx(0, abs=1e-12)


def test_the_rate_follows_the_batch_size():
    assert learning_rate(recipe(base_lr=0.1, schedule="constant"), 0) == pytest.approx(0.1)
    double = recipe(base_lr=0.1, schedule="constant", global_batch_size=512)
    assert learning_rate(double, 0) == pytest.approx(0.2)


@given(st.sampled_from(["cosine", "step", "constant"]), st.integers(0, 400), st.integers(0, 1000))
def test_the_rate_is_never_above_the_full_rate_nor_negative(schedule, warmup, images):
    assert 0 <= learning_rate(recipe(schedule=schedule, warmup_images=warmup), images) <= 0.1
