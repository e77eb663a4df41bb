from pathlib import Path

import pytest
from laid_out import at, make

from semisup import data_checks
from semisup import settings as step_settings
from semisup.datasets import DIGITS


def test_a_builtin_part_needs_its_own_tars_alone() -> None:
    needed = make().shards_to_make(at(dataset="unlabeled", part="00003"))
    assert needed == ["results/datasets/builtin/digits/unlabeled-00009.tar"]


def test_a_part_of_a_folder_needs_its_tars(tmp_path: Path) -> None:
    (tmp_path / "1.jpg").touch()
    plan = make(datasets__unlabeled={"folder": str(tmp_path)})
    assert plan.shards_to_make(at(dataset="unlabeled", part="00000")) == [
        "results/datasets/unlabeled/tars"
    ]


def test_tars_of_the_user_are_no_declared_inputs_but_their_change_is_seen(tmp_path: Path) -> None:
    (tmp_path / "a.tar").touch()
    plan = make(datasets__unlabeled={"shards": f"{tmp_path}/a.tar"})
    job = at(dataset="unlabeled", part="00000")
    assert plan.shards_to_make(job) == []
    before = plan.index_shards(job)
    (tmp_path / "a.tar").write_bytes(b"x")
    assert plan.index_shards(job) != before


def test_parts_cover_all_shards_with_their_ids() -> None:
    plan = make()
    parts = [
        step_settings.IndexShards.model_validate_json(
            plan.index_shards(at(dataset="unlabeled", part=p))
        )
        for p in ("00000", "00001", "00002", "00003")
    ]
    assert [part.first_shard for part in parts] == [0, 3, 6, 9]
    assert [path for part in parts for path in part.shards] == plan.shards("unlabeled")
    assert [part.part for part in parts] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("name", "labels", "expected"),
    [
        ("labeled", None, True),
        ("test", None, True),
        ("unlabeled", None, False),
        ("unlabeled", True, True),
        ("unlabeled", False, False),
    ],
)
def test_labels_are_read_except_of_u_unless_told(
    name: str, labels: bool | None, expected: bool
) -> None:
    plan = make(**{f"datasets__{name}__labels": labels})
    made = step_settings.IndexShards.model_validate_json(
        plan.index_shards(at(dataset=name, part="00000"))
    )
    assert plan.has_labels(name) is expected
    assert made.num_classes == (10 if expected else None)


def test_a_folder_without_labels_has_no_classes(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    plan = make(datasets__unlabeled={"folder": str(tmp_path)})
    made = step_settings.PackFolder.model_validate_json(plan.pack_folder(at(dataset="unlabeled")))
    assert made.classes is None


def test_a_labelled_folder_is_packed_with_its_classes(tmp_path: Path) -> None:
    for name in DIGITS.classes:
        (tmp_path / name).mkdir()
    plan = make(datasets__unlabeled={"folder": str(tmp_path), "labels": True})
    made = step_settings.PackFolder.model_validate_json(plan.pack_folder(at(dataset="unlabeled")))
    assert made.classes == sorted(DIGITS.classes)


def test_manifests_of_a_dataset_and_of_a_selection() -> None:
    plan = make()
    assert plan.manifests("unlabeled")[1] == "results/datasets/unlabeled/manifest-00001.json"
    assert len(plan.manifests("unlabeled")) == 4
    assert plan.manifests("top") == ["results/shards/top/manifest-00000.json"]


def test_by_default_a_hundred_thousand_shards_make_250_parts(tmp_path, monkeypatch) -> None:
    shards = str(tmp_path / "u-{00000..99999}.tar")
    monkeypatch.setattr(data_checks, "check_files", lambda config: ())
    plan = make(datasets__unlabeled={"shards": shards})
    assert len(plan.parts("unlabeled")) == 250
    assert len(make(datasets__unlabeled__shards_per_part=3).parts("unlabeled")) == 4


def test_a_selection_is_packed_in_parts_that_hold_every_class_full() -> None:
    plan = make(pack__samples_per_shard=7, pack__shards_per_part=4)
    parts = plan.packed_parts("top")
    assert [len(part) for part in parts] == [4] * 7 + [1]  # 20 images x 10 classes / 7
    assert len(plan.manifests("top")) == 8


def test_however_large_a_selection_its_parts_fit_into_one_command() -> None:
    plan = make(selections__top__images_per_class=2**31 - 1)
    assert len(plan.packed_parts("top")) == 256


def test_samples_stand_beside_manifests() -> None:
    plan = make()
    assert plan.samples("top") == ["results/shards/top/samples-00000.parquet"]
    assert plan.samples("test") == ["results/datasets/test/samples-00000.parquet"]


def test_builtin_shards_name_every_split() -> None:
    names = make().builtin_shards("digits")
    assert len(names) == sum(DIGITS.num_shards.values())
    assert names[-1] == "unlabeled-00009"
    assert "test-00001" in make().builtin_shards("cifar10")
