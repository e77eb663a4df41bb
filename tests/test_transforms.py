import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchvision.transforms import v2
from torchvision.transforms._presets import ImageClassification

from semisup import models, transforms
from semisup.config import Recipe
from semisup.settings import Preprocessing
from small import square

CROPS = ["random_resized", "padded", "none"]
CPU = torch.device("cpu")
sides = st.integers(1, 40)


def recipe(crop: str = "none", flip: bool = False) -> Recipe:
    return Recipe(images=1, crop=crop, flip=flip)  # type: ignore[arg-type]


def noise(height: int = 24, width: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=generator)


@given(hnp.arrays(np.uint8, st.tuples(sides, sides, st.just(3))))
def test_a_tensor_has_its_channels_first(pixels: np.ndarray) -> None:
    tensor = transforms.to_tensor(pixels)
    assert tensor.dtype == torch.uint8
    assert np.array_equal(tensor.numpy(), np.moveaxis(pixels, 2, 0))


def test_a_tensor_does_not_share_memory_with_its_pixels() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    tensor = transforms.to_tensor(pixels)
    pixels[:] = 255
    assert int(tensor.max()) == 0


def test_read_only_pixels_become_a_tensor_of_its_own() -> None:
    pixels = np.zeros((2, 2, 3), np.uint8)
    pixels.flags.writeable = False
    transforms.to_tensor(pixels)[:] = 1


@given(sides, sides, st.integers(8, 32), st.integers(0, 16))
def test_evaluation_makes_a_square_of_any_image(
    height: int, width: int, image_size: int, margin: int
) -> None:
    transform = transforms.evaluation_transform(
        Preprocessing(image_size=image_size, resize=image_size + margin)
    )
    result = transform(noise(height, width))
    assert result.shape == (3, image_size, image_size)
    assert result.dtype == torch.uint8


def test_evaluation_leaves_an_image_of_the_right_size_as_it_is() -> None:
    image = noise(32, 32)
    assert torch.equal(transforms.evaluation_transform(square(32))(image), image)


def test_evaluation_takes_the_middle() -> None:
    image = noise(40, 60)
    middle = image[:, 10:30, 20:40]
    assert torch.equal(
        transforms.evaluation_transform(Preprocessing(image_size=20, resize=40))(image), middle
    )


def test_evaluation_scales_the_shorter_side_and_keeps_the_proportions() -> None:
    image = torch.zeros(3, 16, 64, dtype=torch.uint8)
    image[:, :, 24:40] = 255  # the middle quarter of the width is white
    assert int(transforms.evaluation_transform(square(8))(image).float().mean()) >= 240


@pytest.mark.parametrize("crop", CROPS)
@given(sides, sides, st.integers(8, 32))
def test_training_makes_a_square_of_any_image(
    crop: str, height: int, width: int, image_size: int
) -> None:
    result = transforms.training_transform(recipe(crop, True), square(image_size))(
        noise(height, width)
    )
    assert result.shape == (3, image_size, image_size)
    assert result.dtype == torch.uint8


@pytest.mark.parametrize("crop", CROPS)
@given(seed=st.integers(0, 2**63 - 1))
def test_training_depends_on_torchs_seed_alone(crop: str, seed: int) -> None:
    transform = transforms.training_transform(recipe(crop, True), square(24))
    results = []
    for _ in range(2):
        np.random.seed(len(results))
        torch.default_generator.manual_seed(seed)
        results.append(transform(noise()))
    assert torch.equal(*results)


@pytest.mark.parametrize("crop", ["random_resized", "padded"])
def test_training_crops_differ_from_seed_to_seed(crop: str) -> None:
    transform = transforms.training_transform(recipe(crop), square(24))
    results = set()
    for seed in range(10):
        torch.manual_seed(seed)
        results.add(transform(noise()).numpy().tobytes())
    assert len(results) > 5


@given(st.integers(0, 10_000))
def test_a_padded_crop_shifts_by_at_most_an_eighth(seed: int) -> None:
    image = noise(32, 32)
    torch.manual_seed(seed)
    result = transforms.training_transform(recipe("padded"), square(32))(image)
    padded = torch.nn.functional.pad(image, (4, 4, 4, 4))
    shifts = [(y, x) for y in range(9) for x in range(9)]
    assert any(torch.equal(result, padded[:, y : y + 32, x : x + 32]) for y, x in shifts)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_what_evaluation_sees_is_what_torchvisions_own_shows(interpolation: str) -> None:
    how = Preprocessing(image_size=24, resize=28, interpolation=interpolation)
    mode = v2.InterpolationMode(interpolation)
    theirs = ImageClassification(crop_size=24, resize_size=28, interpolation=mode)
    image = noise(40, 60)
    ours = transforms.normalize(transforms.evaluation_transform(how)(image)[None], CPU)[0]
    one_level = 1.01 / 255 / min(transforms.STD)  # theirs rounds elsewhere
    assert (ours - theirs(v2.functional.to_pil_image(image))).abs().max() < one_level


@pytest.mark.parametrize("crop", ["random_resized", "padded", "none"])
def test_training_resizes_as_evaluation_does(crop: str) -> None:
    image, seen = noise(50, 50), []
    for interpolation in ("bilinear", "bicubic"):
        how = Preprocessing(image_size=24, resize=24, interpolation=interpolation)
        torch.manual_seed(1)
        seen.append(transforms.training_transform(recipe(crop), how)(image))
    assert not torch.equal(*seen)


def test_without_crop_and_flip_training_sees_what_evaluation_sees() -> None:
    image = noise(30, 50)
    training = transforms.training_transform(recipe("none"), square(24))
    assert torch.equal(training(image), transforms.evaluation_transform(square(24))(image))


@given(st.integers(0, 10_000))
def test_without_flip_nothing_is_mirrored(seed: int) -> None:
    torch.manual_seed(seed)
    assert torch.equal(transforms.training_transform(recipe(), square(24))(noise()), noise())


def test_with_flip_half_of_the_images_are_mirrored_and_nothing_else() -> None:
    transform = transforms.training_transform(recipe(flip=True), square(24))
    mirrored = 0
    for seed in range(200):
        torch.manual_seed(seed)
        result = transform(noise())
        assert torch.equal(result, noise()) or torch.equal(result, noise().flip(2))
        mirrored += torch.equal(result, noise().flip(2))
    assert 70 < mirrored < 130


def test_normalized_pixels_have_the_mean_and_deviation_of_imagenet() -> None:
    images = torch.stack([noise(seed=i) for i in range(4)])
    mean, std = np.array(transforms.MEAN), np.array(transforms.STD)
    expected = (images.numpy() / 255 - mean[:, None, None]) / std[:, None, None]
    normalized = transforms.normalize(images, CPU)
    assert normalized.dtype == torch.float32
    np.testing.assert_allclose(normalized.numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("arch", ["cifar_resnet8_w16", "resnet18"])
def test_a_network_takes_images_in_any_layout(arch: str) -> None:
    network = models.build(arch, 10).eval()
    images = transforms.normalize(torch.stack([noise(32, 32), noise(32, 32)]), CPU)
    last = images.contiguous(memory_format=torch.channels_last)
    assert torch.equal(network(images), network(last))


def test_normalizing_leaves_its_input_alone() -> None:
    images = noise()[None]
    before = images.clone()
    transforms.normalize(images, CPU)
    assert torch.equal(images, before)


def test_mean_and_deviation_are_sent_to_a_device_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.inference_mode():
        expected = transforms.normalize(noise()[None], CPU)
    monkeypatch.setattr(torch, "tensor", None)
    weight = torch.ones(1, 3, 24, 24, requires_grad=True)
    normalized = transforms.normalize(noise()[None], CPU)
    (weight * normalized).sum().backward()
    assert torch.equal(normalized, expected)
    assert not transforms._mean_and_std(CPU)[0].is_inference()


def test_mixing_makes_labels_shares_of_classes() -> None:
    mix = transforms.mixing(recipe().model_copy(update={"mixup": 0.2, "cutmix": 1.0}), 3)
    assert mix is not None
    torch.manual_seed(1)
    images, shares = mix(
        torch.stack([noise(seed=i).float() for i in range(4)]), torch.arange(4) % 3
    )
    assert images.shape == (4, 3, 24, 24)
    assert shares.shape == (4, 3)
    assert torch.allclose(shares.sum(1), torch.ones(4))
    assert ((shares > 0) & (shares < 1)).any()


def test_a_recipe_without_mixing_mixes_nothing() -> None:
    assert transforms.mixing(recipe(), 3) is None


def test_augmentation_follows_the_seed_and_changes_images() -> None:
    strong = recipe().model_copy(update={"rand_augment": 9, "random_erasing": 1.0})
    transform = transforms.training_transform(strong, square(24))
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(transform(noise()))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
    assert results[0].dtype == torch.uint8


def test_what_is_erased_becomes_the_mean_colour() -> None:
    """It is erased before normalising; after that, as in torchvision's reference, it would be 0."""
    erase = transforms.training_transform(
        recipe().model_copy(update={"random_erasing": 1.0}), square(24)
    )
    torch.manual_seed(0)
    normalized = transforms.normalize(erase(torch.full((3, 24, 24), 255).byte())[None], CPU)[0]
    erased = normalized[:, (normalized < 1).all(0)]
    assert erased.shape[1] > 10
    assert float(erased.abs().max()) < 0.01


def test_rand_augment_interpolates_as_torchvisions_reference_does() -> None:
    strong = recipe().model_copy(update={"rand_augment": 9})
    ways = transforms.training_transform(strong, square(24)).transforms
    (own,) = (way for way in ways if isinstance(way, v2.RandAugment))
    assert own.interpolation == v2.InterpolationMode.BILINEAR
