"""The Slurm job a process runs in."""

import signal

import pytest

from semisup import distributed, slurm


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0:05", 5),
        ("1:00", 60),
        ("1:01:01", 3661),
        ("2-00:00:00", 172_800),
        ("UNLIMITED", None),
        ("INVALID", None),
    ],
)
def test_times_are_read_as_slurm_writes_them(text: str, seconds: float | None) -> None:
    assert slurm.parse_time(text) == seconds


def test_outside_of_a_job_there_is_no_end(monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    assert slurm.seconds_left() is None


def test_a_training_stops_before_its_job_ends(monkeypatch) -> None:
    """The real limit is met in tests/slurm."""
    ranks = distributed.Ranks(0, 1, distributed.devices.choose_device())
    for left, stops in ((None, False), (3600.0, False), (1e-9, True)):
        monkeypatch.setattr(slurm, "seconds_left", lambda left=left: left)
        with distributed.StopRequest(ranks) as stop:
            assert stop.heard() == (signal.SIGUSR1 if stops else 0, False)


@pytest.mark.parametrize(
    ("said", "restarts"),
    [("echo JobId=7 Requeue=1 Restarts=2 BatchFlag=1", 2), ("echo JobId=7", 0), ("exit 1", 0)],
)
def test_a_job_knows_how_often_it_was_queued_again(tmp_path, monkeypatch, said, restarts) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    (tmp_path / "scontrol").write_text(f"#!/bin/sh\n{said}\n")
    (tmp_path / "scontrol").chmod(0o755)
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert slurm.restarts() == restarts
    monkeypatch.delenv("SLURM_JOB_ID")
    assert slurm.restarts() == 0


def test_what_slurm_says_is_in_the_error() -> None:
    with pytest.raises(slurm.SlurmError, match=r"no-such-program is not there"):
        slurm.ask("no-such-program")
    with pytest.raises(slurm.SlurmError, match=r"ls /nowhere says: .*No such file"):
        slurm.ask("ls", "/nowhere")
