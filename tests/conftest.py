"""How every test draws its examples, and the fixture several share: an indexed dataset."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from semisup import images, tars
from semisup.settings import IndexShards
from semisup.steps import index_shards
from small import make_jpeg

__all__ = ["Dataset", "make_dataset", "make_jpeg"]

# The same examples every time; `pytest --hypothesis-profile search` looks for new ones.
settings.register_profile(
    "repeatable",
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
settings.register_profile(
    "search", settings.get_profile("repeatable"), derandomize=False, max_examples=1000
)
settings.load_profile("repeatable")

Dataset = Callable[..., list[Path]]


@pytest.fixture
def make_dataset(tmp_path: Path) -> Dataset:
    """Writes tars of samples, each a key and its members, and indexes them; returns manifests."""

    def make(
        shards: list[list[tuple[str, dict[str, bytes]]]],
        num_classes: int | None = 10,
        name: str = "data",
        shards_per_part: int = 1,
    ) -> list[Path]:
        paths = [tmp_path / name / f"{i:05d}.tar" for i in range(len(shards))]
        for path, samples in zip(paths, shards, strict=True):
            tars.write_tar(path, samples)
        manifests = []
        for part, first in enumerate(range(0, len(paths), shards_per_part)):
            settings = IndexShards(
                dataset=name,
                part=part,
                first_shard=first,
                shards=[str(path) for path in paths[first : first + shards_per_part]],
                num_classes=num_classes,
                max_pixels=images.MAX_PIXELS,
                stamp="",
            )
            manifest = tmp_path / name / f"manifest-{part:05d}.json"
            index_shards.main(settings, manifest, tmp_path / name / f"samples-{part:05d}.parquet")
            manifests.append(manifest)
        return manifests

    return make


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The whole pipeline first: it takes longest, and the other files run beside it."""
    items.sort(key=lambda item: item.path.name not in ("test_workflow.py", "test_chaos.py"))
