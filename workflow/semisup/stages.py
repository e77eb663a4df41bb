"""What the models of a configuration go through, and what classes they predict."""

from semisup import datasets
from semisup.config import Config, Model, Sweep, Training


def trainings(model: Model) -> dict[str, Training]:
    """The stages of a model that are trained, in order."""
    stages = {"train": model.train, "pretrain": model.pretrain, "finetune": model.finetune}
    return {stage: training for stage, training in stages.items() if training}


def stage_names(model: Model) -> list[str]:
    """The stages after which a model has weights, in order."""
    return (["imported"] if model.weights else []) + list(trainings(model))


def sweep_of(model: Model) -> Sweep | None:
    return model.finetune.sweep if model.finetune else None


def candidate_name(base_lr: float) -> str:
    """The folder of one training of a sweep."""
    return f"base_lr-{base_lr:g}"


def shape(config: Config, name: str) -> Model:
    """The model whose arch and image size are in force: a baseline has its student's."""
    model = config.models[name]
    return config.models[model.baseline_of] if model.baseline_of else model


def stage_classes(config: Config, name: str, stage: str) -> list[str]:
    """Class names a model predicts after a stage. Raises ValueError, OSError."""
    model = config.models[name]
    training = trainings(model).get(stage)
    if training:
        return source_classes(config, training.on)
    if model.classes is not None:
        return datasets.list_classes(model.classes)
    return datasets.list_classes(1000)  # torchvision's ImageNet weights


def model_classes(config: Config, name: str) -> list[str]:
    """Class names a model predicts after its last stage. Raises ValueError, OSError."""
    return stage_classes(config, name, stage_names(config.models[name])[-1])


def source_classes(config: Config, name: str) -> list[str]:
    """Class names of what a model is trained on: a dataset or a selection."""
    if name in config.selections:
        return model_classes(config, config.selections[name].teacher)
    return datasets.dataset_classes(config.datasets[name])


def stored_classes(config: Config, teacher: str) -> int:
    """P stored of every image the teacher scores. Raises ValueError, OSError."""
    return min(config.score.classes_per_image or 10, len(model_classes(config, teacher)))
