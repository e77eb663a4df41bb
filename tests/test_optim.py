"""Learning rates as functions of images processed."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from semisup.checks import read_presets
from semisup.config import Recipe
from semisup.distributed import Ranks
from semisup.optim import learning_rate, make_average, make_optimizer, place
from semisup.tables import DataError


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


def test_golden_rates_of_the_papers_pretraining():
    """0.1 to 0.1/256 * 1536 in the warm-up, then halved 13 times at equally spaced images."""
    paper = preset("paper_pretrain")
    found = [learning_rate(paper, images) for images in (0, 10**7, 5 * 10**7, 10**8, 10**9 - 1)]
    assert found == pytest.approx([0.1, 0.35, 0.6, 0.3, 0.6 / 2**13])
    cuts = [10**9 * i // 14 + 1 for i in range(1, 14)]
    assert [learning_rate(paper, i) for i in cuts] == pytest.approx(
        [0.6 / 2**i for i in range(1, 14)]
    )


@pytest.mark.parametrize(
    ("name", "epochs", "peak"), [("paper_supervised", 100, 0.6), ("modern_supervised", 300, 0.5)]
)
def test_golden_rates_of_the_supervised_presets(name: str, epochs: int, peak: float):
    """Warm-up of 5 epochs of ImageNet to the scaled rate, then a half cosine to nothing."""
    of, epoch = preset(name), 1_281_167
    assert of.images == epochs * epoch
    at = [0, 2.5, 5, (epochs + 5) / 2, epochs - (epochs - 5) / 4]
    start = of.base_lr
    expected = [start, (start + peak) / 2, peak, peak / 2, peak * (1 - 0.5**0.5) / 2]
    found = [learning_rate(of, round(each * epoch)) for each in at]
    assert found == pytest.approx(expected, rel=1e-5)


def test_decay_and_momentum_of_the_presets():
    found = {name: preset(name) for name in read_presets()}
    assert {name: each.weight_decay for name, each in found.items()} == {
        "paper_pretrain": 1e-4, "paper_finetune": 1e-4, "paper_supervised": 1e-4,
        "modern_supervised": 2e-5,
    }  # fmt: skip
    assert {each.momentum for each in found.values()} == {0.9}


def network() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def test_all_parameters_decay_as_in_the_paper():
    (group,) = make_optimizer(network(), recipe()).param_groups
    assert group["weight_decay"] == 1e-4
    assert len(group["params"]) == 6


def test_biases_and_norms_need_not_decay():
    weights, others = make_optimizer(network(), recipe(weight_decay_on="weights")).param_groups
    assert [p.ndim for p in weights["params"]] == [4, 2]
    assert [p.ndim for p in others["params"]] == [1, 1, 1, 1]
    assert others["weight_decay"] == 0


@pytest.mark.parametrize("batch", [1, 25, 100])
def test_the_average_counts_images_not_steps(batch: int):
    """A weight that jumps from 0 to 1 has its average at 1 - 1/e after ema_images."""
    model = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(model.weight)
    average = make_average(model, recipe(global_batch_size=batch, ema_images=500))
    assert average is not None
    average.update_parameters(model)
    nn.init.ones_(model.weight)
    for _ in range(500 // batch):
        average.update_parameters(model)
    assert average.module.weight.item() == pytest.approx(1 - math.exp(-1), rel=1e-4)


def test_sync_batchnorm_without_gpus_is_refused():
    ranks = Ranks(0, 2, torch.device("cpu"))
    with pytest.raises(DataError, match="sync_batchnorm: true works on GPUs only"):
        place(network(), recipe(sync_batchnorm=True), ranks)
