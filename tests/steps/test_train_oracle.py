"""The training loop beside a page of plain torch, which shares its batches with it and nothing else."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from trainings import RECIPE, SHARDS, make_settings, run

from conftest import Dataset
from semisup import loader, models, transforms
from semisup.config import Recipe
from semisup.order import TrainingOrder
from semisup.samples import labelled_rows, read_samples
from small import square

MOMENTUM, WEIGHT_DECAY, BATCH = 0.9, 0.05, 8


def plain(manifests: list[Path], recipe: Recipe, decays_all: bool) -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = models.build("cifar_resnet8_w4", 2, 12).train()
    samples = read_samples(manifests)
    labels = torch.from_numpy(samples.table["label"].to_numpy().astype(np.int64))
    order = TrainingOrder(labelled_rows(samples), 0, recipe.images, BATCH, None)
    change = transforms.training_transform(recipe, square(12))
    weights = dict(model.named_parameters())
    velocity = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    average: dict[str, torch.Tensor] = {}
    mean, std = (torch.tensor(x).reshape(3, 1, 1) for x in (transforms.MEAN, transforms.STD))
    batches = loader.training_batches(samples, order, change, 12, 0, 0, 1, 0)
    for step, batch in enumerate(batches):
        logits = model((batch.images_NCHW / 255 - mean) / std)
        log_softmax = logits - logits.logsumexp(1, keepdim=True)
        loss = -log_softmax[range(len(logits)), labels[batch.rows]].mean()
        gradients = torch.autograd.grad(loss, list(weights.values()))
        lr = 0.5 / 256 * BATCH * (1 + math.cos(math.pi * step * BATCH / recipe.images)) / 2
        with torch.no_grad():
            for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
                decay = WEIGHT_DECAY if decays_all or weight.ndim > 1 else 0
                velocity[name] = MOMENTUM * velocity[name] + gradient + decay * weight
                weight -= lr * velocity[name]
        share = math.exp(-BATCH / recipe.ema_images) if recipe.ema_images and step else 0.0
        for name, value in model.state_dict().items():
            average[name] = share * average.get(name, 0) + (1 - share) * value
    return average


@pytest.mark.parametrize(
    ("keys", "decays_all"),
    [({}, True), ({"ema_images": 40}, True), ({"weight_decay_on": "weights"}, False)],
)
def test_a_training_ends_where_plain_torch_does(
    tmp_path: Path, make_dataset: Dataset, keys: dict, decays_all: bool
) -> None:
    """Momentum, decay, rate and the average of the weights that are handed on."""
    recipe = RECIPE.model_copy(update={"weight_decay": WEIGHT_DECAY, **keys})
    manifests = make_dataset(SHARDS, 2)
    stage = run(tmp_path, manifests, make_settings(recipe))
    found, expected = models.load(stage / "weights.pt").state, plain(manifests, recipe, decays_all)
    assert found.keys() == expected.keys()
    for name in found:
        if found[name].is_floating_point():
            torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
