"""Curves to look at while a training runs: TensorBoard's events, and Weights & Biases if asked."""

import logging
from pathlib import Path
from typing import Any, Protocol

from torch.utils.tensorboard import SummaryWriter

log = logging.getLogger("semisup")


class Tracker(Protocol):
    def add(self, row: dict[str, float], images_per_second: float) -> None:
        """``row``: one of METRICS."""


class Nowhere:
    """For ranks but the first."""

    def add(self, row: dict[str, float], images_per_second: float) -> None: ...


class Events:
    """Events in ``folder``, by images processed. ``project``: of Weights & Biases, or empty."""

    def __init__(self, folder: Path, what: str, project: str) -> None:
        self.folder, self.what, self.project = folder, what, project
        self.writer: SummaryWriter | None = None
        self.run: Any = None

    def add(self, row: dict[str, float], images_per_second: float) -> None:
        images = int(row["images"])
        if self.writer is None:  # what an interrupted run wrote from here on is not shown
            self.writer = SummaryWriter(str(self.folder), purge_step=images)
            self.run = self._start_run() if self.project else None
        values = {name: row[name] for name in ("loss", "top1", "lr")}
        values["images_per_second"] = images_per_second
        for name, value in values.items():
            self.writer.add_scalar(name, value, images)
        self.writer.flush()
        if self.run:
            self.run.log(values | {"images": images})

    def _start_run(self) -> Any:
        """None where it cannot be: no curve is worth a training."""
        try:
            import wandb  # type: ignore[import-not-found]  # not among the requirements

            own = {"name": self.what, "id": self.folder.parent.name, "resume": "allow"}
            return wandb.init(project=self.project, **own)
        except Exception as error:
            log.warning("no curves in Weights & Biases: %s: %s", type(error).__name__, error)
            return None
