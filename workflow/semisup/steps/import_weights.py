"""Make weights from elsewhere look like those of any other stage."""

import logging
from pathlib import Path

import torch

from semisup import foreign, models, settings
from semisup.steps import run
from semisup.tables import DataError
from semisup.vision import torchvision
from semisup.wording import name_first

log = logging.getLogger("semisup")


def main(settings: settings.ImportWeights, weights: Path, classes: Path) -> None:
    """Load torchvision's weights or a local checkpoint and write them with their classes."""
    source, _, name = settings.weights.partition(":")
    if source == "torchvision":
        chosen = torchvision.models.get_model_weights(settings.arch)[name]
        try:
            state = chosen.get_state_dict(progress=False, check_hash=True)
        except OSError as error:
            raise DataError(
                f"weights {settings.weights} of {settings.arch} could not be downloaded ({error}). "
                "Download them elsewhere and name the file in `weights`."
            ) from None
    else:
        path = Path(settings.weights)
        state = foreign.unwrap(foreign.read_checkpoint(path), path)
    if settings.arch in models.INCEPTIONS:
        state = foreign.without_auxiliary(state)
        if source == "torchvision":
            state |= foreign.torchvision_input()
    model = models.build(settings.arch, len(settings.classes), settings.preprocessing.image_size)
    models.load_state(model, state, source=settings.weights)
    _check_finite(model.state_dict(), settings.weights)
    made = models.Weights(
        settings.arch, settings.preprocessing, settings.classes, model.state_dict()
    )
    models.save(weights, made)
    models.write_classes(classes, settings.classes)
    log.info("%s: %s with %d classes", settings.weights, settings.arch, len(settings.classes))


def _check_finite(state: dict[str, torch.Tensor], source: str) -> None:
    wrong = [name for name, tensor in state.items() if not tensor.isfinite().all()]
    if wrong:
        raise DataError(
            f"{source}: {len(wrong)} tensors hold values that are not finite ({name_first(wrong)}). Their "
            "training diverged; take an earlier checkpoint."
        )


if __name__ == "__main__":
    run(main)
