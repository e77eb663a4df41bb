"""Training states on disk."""

import pytest
import torch

from semisup import checkpoint
from semisup.tables import DataError


def state(step: int) -> dict[str, object]:
    return {"step": step, "model": {"w": torch.full((3,), float(step))}}


def test_the_newest_state_is_loaded(tmp_path):
    for step in (1, 2, 30):
        checkpoint.save(tmp_path, step, state(step))
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 30
    assert torch.equal(loaded["model"]["w"], torch.full((3,), 30.0))


def test_two_generations_are_kept(tmp_path):
    for step in range(5):
        checkpoint.save(tmp_path, step, state(step))
    assert [p.name[:15] for p in sorted(tmp_path.iterdir())] == [
        "step-0000000003",
        "step-0000000004",
    ]


def test_what_is_newer_and_damaged_does_not_push_out_what_is_whole(tmp_path):
    for step in (90, 100):
        checkpoint.save(tmp_path, step, state(step))
    for path in tmp_path.iterdir():
        path.write_bytes(b"rotten")
    assert checkpoint.load(tmp_path) is None
    for step in (5, 6):
        checkpoint.save(tmp_path, step, state(step))
    assert sorted(path.name[:15] for path in tmp_path.iterdir()) == [
        "step-0000000005",
        "step-0000000006",
    ]


def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, state(1))
    checkpoint.save(tmp_path, 2, state(2))
    newest = max(tmp_path.iterdir())
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["step"] == 1
    assert "damaged" in caplog.text


def test_a_checkpoint_that_cannot_be_read_gives_way_but_is_no_reason_to_begin_anew(
    tmp_path, caplog
):
    checkpoint.save(tmp_path, 1, state(1))
    (tmp_path / "step-0000000002-0123456789abcdef.pt").mkdir()
    assert checkpoint.load(tmp_path)["step"] == 1
    assert "cannot be read" in caplog.text
    next(tmp_path.glob("*01-*")).write_bytes(b"rotten")
    with pytest.raises(DataError, match=r"no checkpoint can be read .* delete the checkpoints"):
        checkpoint.load(tmp_path)


def test_to_begin_anew_is_said_aloud(tmp_path, caplog):
    checkpoint.save(tmp_path, 1, state(1))
    next(tmp_path.iterdir()).write_bytes(b"rotten")
    assert checkpoint.load(tmp_path) is None
    assert "THE TRAINING BEGINS ANEW" in caplog.text


def test_what_a_gpu_has_saved_is_loaded_to_the_cpu(tmp_path, monkeypatch):
    """To where it was, all ranks of a node would load it to the GPU of the first."""
    with monkeypatch.context() as patch:
        patch.setattr(torch.serialization, "location_tag", lambda _: "cuda:0")
        checkpoint.save(tmp_path, 1, state(1))
    loaded = checkpoint.load(tmp_path)
    assert loaded is not None
    assert loaded["model"]["w"].device == torch.device("cpu")


def test_without_a_checkpoint_there_is_nothing_to_load(tmp_path):
    assert checkpoint.load(tmp_path / "absent") is None


def test_checkpoints_of_another_run_and_leftovers_are_removed(tmp_path):
    checkpoint.save(tmp_path / "old", 1, state(1))
    checkpoint.save(tmp_path / "own", 1, state(1))
    (tmp_path / "own" / ".step.x.tmp").write_bytes(b"half")
    checkpoint.keep_only(tmp_path / "own")
    assert [p.name for p in tmp_path.iterdir()] == ["own"]
    assert len(list((tmp_path / "own").iterdir())) == 1


def test_who_claims_last_is_the_only_owner(tmp_path):
    first = checkpoint.claim(tmp_path)
    checkpoint.check_claim(tmp_path, first)
    second = checkpoint.claim(tmp_path)
    checkpoint.check_claim(tmp_path, second)
    with pytest.raises(DataError, match="another process has taken this training over"):
        checkpoint.check_claim(tmp_path, first)


def test_of_a_folder_that_is_gone_nobody_is_the_owner(tmp_path):
    owner = checkpoint.claim(tmp_path / "run")
    checkpoint.keep_only(tmp_path / "other")
    with pytest.raises(DataError):
        checkpoint.check_claim(tmp_path / "run", owner)
