"""The whole configuration as typed, documented models: every key, its default, its meaning.

This is the only definition: ``docs/config.md`` and ``docs/config.schema.json`` are generated
from it (``make docs``), the checks across keys are in :mod:`semisup.checks`.
"""

import os
import re
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$", max_length=100)]
"""A name given by the user: a letter, then letters, digits, ``_`` and ``-`` (it becomes a path)."""

TORCHVISION = "torchvision:"
"""What the name of torchvision's weights begins with; without it, `weights` is a file."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _restore_on(cls, raw: Any) -> Any:
        """YAML 1.1 reads the key ``on`` as true; make it a word again."""
        if isinstance(raw, dict):
            return {"on" if key is True else key: value for key, value in raw.items()}
        return raw

    @field_validator("*")
    @classmethod
    def _not_huge(cls, value: Any) -> Any:
        if isinstance(value, int) and value >= 2**53:
            raise ValueError("the number is too large; lower it")
        return value


class Dataset(Section):
    """Where samples are. Give exactly one of `shards`, `folder` and `builtin`."""

    shards: str | list[str] | None = Field(
        None,
        description="WebDataset tars, in brace notation: `data/train-{000..099}.tar`. "
        "The order of the shards is part of the identity of an image: append, never insert.",
    )
    folder: str | None = Field(
        None,
        description="A folder of images, written to tars by the pipeline. With labels, one "
        "sub-folder per class, classes in sorted order.",
    )
    builtin: str | None = Field(
        None,
        description="A set the pipeline makes itself: `digits/SPLIT` (scikit-learn's, no download) "
        "or `cifar10-N/SPLIT` (N labels), SPLIT one of labeled, unlabeled, validation, test.",
    )
    classes: int | list[str] | str | None = Field(
        None,
        description="Class names in the order of the class ids: a list, a text file with one name "
        "a line, or just their number. Known for `folder` and `builtin`.",
    )
    labels: bool | None = Field(
        None,
        description="Whether `.cls` holds the class of each image. Default: true, but false for the "
        "unlabelled dataset of a selection; true there only lets the report measure the "
        "precision of the selection, nothing else reads it.",
    )
    num_shards: int = Field(8, ge=1, le=100_000, description="Tars to write for a `folder`.")
    shards_per_part: int | None = Field(
        None,
        ge=1,
        description="Consecutive shards handled by one job: a part. Default: 200, doubled while there "
        "would be over 256 parts: above 51,200 shards, above 102,400 and so on (say it, if U is to "
        "grow past one). Aim at 10 minutes to 2 hours for each. With other parts U is indexed, described and "
        "searched anew; it is scored again only with `duplicates.read_with`.",
    )

    max_pixels: int = Field(
        89_478_485,
        ge=1,
        le=178_956_970,
        description="Largest image that is decoded, width times height, as its header says it: a guard "
        "against decompression bombs. Larger ones fail.",
    )
    max_failure_rate: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of the samples of a part that may fail. More, and the run stops: a half-broken "
        "part must not quietly shrink U.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> "Dataset":
        given = [k for k in ("shards", "folder", "builtin") if getattr(self, k) is not None]
        if len(given) != 1:
            found = " and ".join(given) or "none of them"
            raise ValueError(f"give exactly one of shards, folder, builtin; found {found}")
        return self


class Training(Section):
    """One training of a model."""

    on: Name = Field(description="A labelled dataset, or a selection.")
    recipe: Name = Field(description="Name of a recipe: your own or a preset.")


class Sweep(Section):
    """Several trainings that differ in one value; the best is kept, all are in the report."""

    base_lr: list[Annotated[float, Field(gt=0)]] = Field(
        min_length=2, max_length=20, description="These replace the recipe's; one training each."
    )
    choose_on: Name = Field(
        description="A labelled dataset whose accuracy decides; none of `evaluate.on`, nor one that "
        "the model, its teacher or what it starts from is trained on."
    )


class Finetuning(Training):
    """The last training of a model."""

    sweep: Sweep | None = Field(None, description="Try several learning rates.")


class Model(Section):
    """A network. Stages run in the order pretrain, finetune; or train alone. Any model can teach."""

    arch: str | None = Field(
        None,
        description="A torchvision classifier (`resnet50`, `vit_b_16`, ...), the paper's ResNeXts "
        "(`resnext101_32x{4,8,16,32,48}d`), or a small one for 32-pixel images: `cifar_resnet{6n+2}_w{width}` (`cifar_resnet8_w16`).",
    )
    image_size: int = Field(
        224,
        ge=8,
        le=4096,
        description="Side of the square input, pixels. `vit_*` and `maxvit_*`: that of their weights.",
    )
    resize: int | None = Field(
        None,
        ge=8,
        description="Shorter side before the central crop at evaluation and scoring, pixels. "
        "Default: image_size * 256 / 224, or in the proportion torchvision's `weights` were evaluated in.",
    )
    interpolation: Literal["bilinear", "bicubic"] | None = Field(
        None,
        description="How images are resized. Default: bilinear, or as torchvision's `weights` were trained.",
    )
    weights: str | None = Field(
        None,
        min_length=1,
        description="Start from these: `torchvision:IMAGENET1K_V2`, or a local checkpoint file, of a "
        "network that sees pixels normalised by ImageNet's mean and deviation.",
    )
    classes: int | list[str] | str | None = Field(
        None,
        description="Class names of `weights`. Default for torchvision's: ImageNet's 1,000 by number, as its own "
        "repeat two.",
    )
    init: Name | None = Field(
        None,
        description="Start from the final weights of this model (same arch): transfer. Its image_size, "
        "resize and interpolation are not taken over.",
    )
    baseline_of: Name | None = Field(
        None,
        description="Makes this the supervised baseline of that student: its arch, image size and "
        "budget (images of all its stages together) replace this model's own.",
    )
    train: Training | None = Field(None, description="Train, with nothing before or after.")
    pretrain: Training | None = Field(None, description="First stage of a student: on a selection.")
    finetune: Finetuning | None = Field(None, description="Last stage: on a labelled dataset.")

    @model_validator(mode="after")
    def _stages(self) -> "Model":
        if self.train and (self.pretrain or self.finetune):
            raise ValueError("give train alone, or pretrain and finetune, not both")
        if self.weights and self.init:
            raise ValueError("weights and init both say where to start: give one")
        if not (self.train or self.pretrain or self.finetune or self.weights):
            raise ValueError("nothing to do: give weights, train, pretrain or finetune")
        if self.finetune and not (self.pretrain or self.weights or self.init):
            raise ValueError("finetune needs a start: pretrain, weights or init")
        if self.baseline_of and not self.train:
            raise ValueError("a baseline needs train")
        if self.baseline_of and self.arch:
            raise ValueError("arch comes from the student named in baseline_of: remove it")
        if self.baseline_of and (self.weights or self.init):
            raise ValueError("a baseline starts from random weights: remove weights and init")
        if not self.baseline_of and not self.arch:
            raise ValueError("arch is missing")
        if self.classes is not None and not self.weights:
            raise ValueError("classes belongs to weights; here they come from the dataset")
        return self


class Selection(Section):
    """D-hat: for each class, the best-scored images of an unlabelled dataset."""

    teacher: Name = Field(description="The model whose scores rank the images.")
    unlabeled: Name = Field(description="The dataset to select from.")
    images_per_class: int = Field(ge=1, lt=2**31, description="K: images kept for each class.")
    classes_per_image: int | None = Field(
        None,
        ge=1,
        description="P: classes an image may be selected for, its best ones. At most, and by default, "
        "`score.classes_per_image`.",
    )
    variant: Literal["balanced", "zipf", "random"] = Field(
        "balanced",
        description="balanced: K images for every class. zipf: as many in all, but K of a class is a "
        "share of 1/r, r its place among the classes by the images of U it is the best class of "
        "(the paper's unbalanced-ranked). random: K images by chance among those labelled with the "
        "class (hashtags); U needs `labels: true`.",
    )
    rank_by: Literal["softmax", "logit"] = Field(
        "softmax",
        description="What ranks the images of a class: the softmax probability (as log-odds, which "
        "resolve it near 1), or the raw logit (stored to 1/4096: about one image in 20,000 at the cut is "
        "another than by exact logits).",
    )
    min_score: float = Field(
        0.0, ge=0, lt=1, description="Softmax probability an image must reach for its class."
    )
    fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Share of U to select from, its images drawn at random by `seed`. Nested: a "
        "smaller fraction is part of a larger one. Where copies are removed, of the images without "
        "their copies.",
    )

    @model_validator(mode="after")
    def _random(self) -> "Selection":
        ranking = {"classes_per_image", "rank_by", "min_score"}
        ranking &= self.model_dump(exclude_defaults=True).keys()
        if self.variant == "random" and ranking:
            name = min(ranking)
            raise ValueError(f"{name} is about scores, variant random chooses by chance: remove it")
        return self


class Recipe(Section):
    """Hyperparameters of one training. Schedules count images processed, not epochs."""

    preset: Name | None = Field(
        None, description="Start from this preset; the keys given here replace its own."
    )
    images: int = Field(ge=1, description="Budget: images processed, over all epochs.")
    global_batch_size: int = Field(256, ge=1, description="Images per optimiser step, all devices.")
    device_batch_size: int | None = Field(
        None,
        ge=1,
        description="Images per forward pass of one device, what BatchNorm averages over; a device "
        "makes as many passes a step as it takes. Default: the global batch divided by the devices. "
        "Give it, and another number of devices trains the same.",
    )
    cpu_threads: int = Field(
        2,
        ge=1,
        le=256,
        description="Threads of each process that trains without a GPU. The last bits of its sums "
        "depend on them, so they are not those that happen to be there.",
    )
    base_lr: float = Field(0.1, gt=0, description="Learning rate per 256 images of the batch.")
    warmup_images: int = Field(
        0, ge=0, description="Linear warm-up to the full rate, from that of a batch of 256."
    )
    schedule: Literal["cosine", "step", "constant"] = Field(
        "cosine", description="After the warm-up: to zero by a cosine, or by equally spaced cuts."
    )
    decay_factor: float = Field(0.1, gt=0, lt=1, description="`step`: what a cut multiplies by.")
    num_decays: int = Field(3, ge=1, description="`step`: number of cuts.")
    momentum: float = Field(0.9, ge=0, lt=1, description="Of SGD.")
    nesterov: bool = Field(False, description="Nesterov's form of the momentum.")
    weight_decay: float = Field(1e-4, ge=0, description="Of SGD.")
    weight_decay_on: Literal["all", "weights"] = Field(
        "all", description="all: as in the paper. weights: not on biases and norms."
    )
    sync_batchnorm: bool = Field(
        False,
        description="BatchNorm over all devices; false: over each device's images, as in the paper.",
    )
    ema_images: int | None = Field(
        None,
        ge=1,
        description="Hand on a moving average of the weights over about so many images, in the place "
        "of the last weights: after so many, an old weight counts 1/e.",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Of the softmax loss.")
    mixup: float = Field(0.0, ge=0, description="Alpha of Mixup; 0: none.")
    cutmix: float = Field(
        0.0, ge=0, description="Alpha of CutMix; 0: none. With both, each batch gets one of them."
    )
    crop: Literal["random_resized", "padded", "none"] = Field(
        "random_resized",
        description="random_resized: ImageNet's. padded: resize, pad by an eighth, crop (small "
        "images). none: resize and central crop.",
    )
    flip: bool = Field(True, description="Mirror half of the images; false for digits or text.")
    rand_augment: int = Field(
        0, ge=0, le=30, description="Magnitude of RandAugment's two operations; 0: none."
    )
    random_erasing: float = Field(
        0.0, ge=0, le=1, description="Probability that a rectangle of an image is erased."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        description="Of the forward pass, by autocast. auto: bfloat16 on GPUs that have it, else float32.",
    )
    channels_last: bool = Field(
        True,
        description="Keep the channels of a pixel together: faster convolutions, on GPUs and CPUs. Networks "
        "with narrower ones than 16 channels stay as they are.",
    )
    compile: bool = Field(
        False,
        description="torch.compile the network: faster on GPUs after a minute; needs a compiler.",
    )


class Score(Section):
    """What scoring stores of the teacher's predictions."""

    classes_per_image: int | None = Field(
        None,
        ge=1,
        le=127,
        description="P stored: selections may use any number up to it. Default: 10, or all classes "
        "where there are fewer.",
    )
    batch_size: int = Field(
        256, ge=1, description="Images per forward pass. May change the last bits of a score."
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32",
        description="Of the forward pass, the last layer always in float32. bfloat16 scores twice as "
        "fast; auto: bfloat16 on GPUs that have it. float32 convolutions on NVIDIA GPUs since Ampere "
        "are torch's TF32. The scores say what made them.",
    )


class Remove(Section):
    """Which recorded duplicates no selection may contain. An image is removed if any rule says so."""

    closest: int = Field(
        0, ge=0, description="The N images of U closest to an evaluation image (paper: 5,000)."
    )
    max_distance: float | None = Field(
        None, ge=0, le=2, description="Images at most this far from an evaluation image."
    )
    reviewed: str | None = Field(
        None,
        min_length=1,
        description="CSV with columns shard_id, sample_index, decision (keep or remove), as the review "
        "page writes it: overrides the rules about evaluation images. `remove` removes the image. `keep` "
        "is about the pair its row names (evaluation_dataset, evaluation_shard_id, "
        "evaluation_sample_index): the image is removed all the same if a rule holds for another pair "
        "of it, as with an evaluation set that was added since; of a list without these columns, it "
        "is about the image as a whole. Rows of other datasets than the selection's, by a column "
        "`dataset`, are left out: one file holds the lists of several. Columns `key` and `content_hash`, "
        "if there are any, must hold those of the images.",
    )
    evaluation_copies: bool = Field(
        True, description="Images with the bytes or the pixels of an evaluation image."
    )
    copies: bool = Field(
        True,
        description="Images with the bytes or the pixels of an earlier image of U: keep only the "
        "first by identity.",
    )
    near_copies: bool = Field(
        True, description="Images that `within_unlabeled` found close to an earlier image of U."
    )


class WithinUnlabeled(Section):
    """Near-duplicates within an unlabelled dataset; absent: they are not looked for."""

    max_distance: float = Field(
        ge=0, le=2, description="Images this close to an earlier, kept one are near-copies of it."
    )
    cells: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Only images of one cell are compared, so that some pairs are missed: more cells "
        "are faster, fewer miss less. About a cell for 10,000 images.",
    )


class Duplicates(Section):
    """Near-duplicates of evaluation images in U, and what to do about them."""

    descriptor: Name = Field(
        description="The model whose features are compared: the input of its last layer. The paper's "
        "is a ResNet-18: name a model `{arch: resnet18, weights: torchvision:IMAGENET1K_V1}`."
    )
    read_with: Name | None = Field(
        None,
        description="A teacher: in the pass in which it scores an unlabelled dataset, the features "
        "are made too, from one decoding (and one forward pass where it is the descriptor). "
        "Default: a pass of their own, which another teacher does not repeat. With it a part in which a "
        "tar is new, changed or moved is scored whole again; without it such a tar alone (features are "
        "made by part either way).",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "float32", description="Of the descriptor's forward pass, as in `score`."
    )
    record_distance: float = Field(
        0.6,
        ge=0,
        le=2,
        description="Pairs at most this far apart are recorded; be generous, `remove` decides later.",
    )
    max_pairs: int = Field(
        100_000,
        ge=1,
        le=100_000_000,
        description="Pairs recorded, the closest of all. The closest evaluation image of each image "
        "within `record_distance` is always recorded. Each takes 100 bytes of a job's memory.",
    )
    within_unlabeled: WithinUnlabeled | None = Field(
        None, description="Look for near-duplicates within U too, approximately; off by default."
    )
    leak_distance: float | None = Field(
        None,
        ge=0,
        le=2,
        description="What the report calls a leak: an evaluation image with an image at most this far "
        "away, or of the same pixels, in what models learn from. Default: the largest distance that `remove` removes.",
    )
    calibration_images: int = Field(
        300,
        ge=1,
        le=100_000,
        description="Evaluation images, of each set, of which near-duplicates are planted to see how "
        "far away the descriptor puts them.",
    )
    review_pairs: int = Field(
        5000, ge=1, le=20_000, description="Pairs on the review page, the closest."
    )
    remove: Remove = Field(default_factory=Remove, description="Decides; changing it is cheap.")


class Evaluate(Section):
    """What the models are measured on; duplicates of these images are searched in U."""

    on: list[Name] = Field(min_length=1, description="Labelled datasets.")
    batch_size: int = Field(256, ge=1, description="Images per forward pass.")


class Pack(Section):
    """How a selection is written as WebDataset shards."""

    samples_per_shard: int = Field(10_000, ge=1, description="Samples in each tar but the last.")
    shards_per_part: int = Field(
        16, ge=1, description="Tars that one job writes; more where there would be over 256 jobs."
    )


class Config(Section):
    """The configuration: things have names and refer to each other by name."""

    results: str = Field("results", description="Folder of everything produced.")
    seed: int = Field(0, ge=0, lt=2**31, description="Of every random choice.")
    datasets: dict[Name, Dataset] = Field(min_length=1, description="Where samples are.")
    models: dict[Name, Model] = Field(min_length=1, description="Every network.")
    selections: dict[Name, Selection] = Field(default_factory=dict, description="D-hat, by name.")
    recipes: dict[Name, Recipe] = Field(
        default_factory=dict, description="Hyperparameters of trainings; presets need no entry."
    )
    score: Score = Field(default_factory=Score, description="Scoring U.")
    duplicates: Duplicates | None = Field(
        None, description="Removal of near-duplicates of evaluation images; absent: none is made."
    )
    evaluate: Evaluate = Field(description="Measuring the models.")
    pack: Pack = Field(default_factory=Pack, description="Writing selections as shards.")
    wandb: Name | Literal[""] = Field(
        "",
        description="A project of Weights & Biases that shows the curves of trainings too; needs "
        "`uv pip install wandb` in the environment of the jobs. Changes no result.",
    )

    @field_validator("results")
    @classmethod
    def _plain_path(cls, path: str) -> str:
        """Every path begins with it: no wildcard of a rule, nothing a shell splits or expands."""
        if not path or path.startswith("-") or re.search(r"[\s\0{}*?\[\]\\]", path):
            wrong = r"empty, or holds a space or one of {}*?[]\, or begins with -"
            raise ValueError(f"{path!r} is {wrong}; choose another folder")
        return os.path.normpath(path)
