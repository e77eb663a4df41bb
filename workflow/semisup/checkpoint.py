"""Training states on disk: whole or absent, the newest whole one wins, another run's are ignored."""

import hashlib
import io
import logging
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import torch

from semisup import tables
from semisup.tables import DataError

log = logging.getLogger("semisup")

KEPT = 2
NAME = re.compile(r"step-(\d{10})-([0-9a-f]{16})\.pt")
OWNER = "owner"


def claim(folder: Path) -> str:
    """Make this process the only one that may save here, until another does; returns its name.

    A node that lost its network trains on beside what was started in its place.
    """
    name = uuid.uuid4().hex
    tables.write_bytes(folder / OWNER, name.encode())
    return name


def check_claim(folder: Path, owner: str) -> None:
    """Raises DataError when another process has claimed the folder, or removed it."""
    path = folder / OWNER
    if not path.exists() or path.read_bytes() != owner.encode():
        raise DataError(f"{folder}: another process has taken this training over; this one ends.")


def save(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write the state after ``step`` steps and keep the one before. The name holds the digest.

    What is newer was not whole when this training began: it would be kept in place of what is.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()[:16]
    own = folder / f"step-{step:010d}-{digest}.pt"
    tables.write_bytes(own, buffer.getvalue())
    others = [path for path in _newest_first(folder) if path != own]
    before = [path for path in others if path < own]
    for path in {*others} - {*before[: KEPT - 1]}:
        path.unlink()


def load(folder: Path) -> dict[str, Any] | None:
    """The newest state whose bytes are those written, on the CPU, or None. What is passed over is logged.

    Raises DataError where none is whole and one cannot be read: tomorrow it may be.
    """
    unreadable = None
    for path in (found := _newest_first(folder)):
        try:
            content = path.read_bytes()
        except OSError as error:
            unreadable = error
            log.warning("%s cannot be read (%s); trying the checkpoint before it", path, error)
            continue
        if path.name[16:32] == hashlib.sha256(content).hexdigest()[:16]:
            # Not where it was: all ranks of a node would fill the GPU of the first.
            state: dict[str, Any] = torch.load(
                io.BytesIO(content), map_location="cpu", weights_only=True
            )
            return state
        log.warning("%s is damaged; trying the checkpoint before it", path)
    if unreadable:
        raise DataError(
            f"{folder}: no checkpoint can be read ({unreadable}). Mend the disk, or delete the "
            "checkpoints to begin anew."
        )
    if found:
        log.warning("%s: no checkpoint is whole; THE TRAINING BEGINS ANEW", folder)
    return None


def keep_only(folder: Path) -> None:
    """Remove the checkpoints of other runs (siblings of this run's folder), and leftovers."""
    for other in folder.parent.iterdir() if folder.parent.is_dir() else []:
        if other != folder:
            shutil.rmtree(other)
    for leftover in folder.glob(".*.tmp"):
        leftover.unlink()


def _newest_first(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted((p for p in folder.iterdir() if NAME.fullmatch(p.name)), reverse=True)
