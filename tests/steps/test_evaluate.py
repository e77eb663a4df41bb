"""What a model is measured by."""

from pathlib import Path

import pytest
import torch

from conftest import Dataset
from semisup import models, settings
from semisup.steps import evaluate
from semisup.tables import DataError
from small import make_jpeg, square

ARCH = "cifar_resnet8_w4"


def test_a_network_without_finite_scores_is_refused_and_not_right_everywhere(
    tmp_path: Path, make_dataset: Dataset
) -> None:
    samples = [(f"i{n}", {"jpg": make_jpeg(n), "cls": b"%d" % (n % 3)}) for n in range(3)]
    manifests = make_dataset([samples], 3, "test")
    state = models.build(ARCH, 3).state_dict()
    state["fc.bias"][1] = torch.nan
    weights = tmp_path / "weights.pt"
    models.save(weights, models.Weights(ARCH, square(32), ["a", "b", "c"], state))
    made = settings.Evaluate(model="student", stage="finetune", datasets=["test"], batch_size=2)
    outputs = tmp_path / "evaluations.parquet", tmp_path / "predictions.parquet"
    with pytest.raises(DataError, match=r"^student finetune: scores of 'i0' in .*00000\.tar are"):
        evaluate.main(made, manifests, weights, *outputs, 0)
    assert not any(path.exists() for path in outputs)
