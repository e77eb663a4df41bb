"""Snakemake's dry-runs in this process, where they take a third of a second."""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from snakemake.api import SnakemakeApi
from snakemake.logging import logger
from snakemake.settings.types import (
    ConfigSettings,
    DAGSettings,
    ExecutionSettings,
    OutputSettings,
    Quietness,
    ResourceSettings,
)

from small import ROOT


class Job(NamedTuple):
    rule: str
    wildcards: dict[str, str]
    outputs: list[str]
    reason: str


class _Jobs(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Job] = []

    def emit(self, record: Any) -> None:
        if getattr(record, "event", None) and record.event.value == "job_info":
            outputs = [str(path) for path in record.output]
            self.found.append(Job(record.rule_name, dict(record.wildcards), outputs, record.reason))


def dry_run(
    folder: Path,
    config: dict[str, Any],
    resources: ResourceSettings | None = None,
    snakefile: Path = ROOT / "Snakefile",
) -> list[Job]:
    """The jobs that would run in a folder, but for the target."""
    return [
        job for job in _run(folder, config, "dryrun", resources, snakefile) if job.rule != "all"
    ]


def touch(folder: Path, config: dict[str, Any]) -> None:
    """Have Snakemake take the files that are there for up to date."""
    _run(folder, config, "touch", None, ROOT / "Snakefile")


def _run(
    folder: Path,
    config: dict[str, Any],
    executor: str,
    resources: ResourceSettings | None,
    snakefile: Path,
) -> list[Job]:
    with _as_it_was(), SnakemakeApi(OutputSettings(quiet={Quietness.ALL})) as api:
        workflow = api.workflow(
            resource_settings=resources or ResourceSettings(cores=2),
            config_settings=ConfigSettings(config=config),
            snakefile=snakefile,
            workdir=folder,
        )
        logger.addHandler(jobs := _Jobs())
        try:
            forced = DAGSettings(forceall=executor == "touch")
            workflow.dag(forced).execute_workflow(
                pseudo_executor=executor, execution_settings=ExecutionSettings(lock=False)
            )
        finally:
            logger.removeHandler(jobs)
    return jobs.found


@contextmanager
def _as_it_was() -> Iterator[None]:
    """The Snakefile changes the environment, the filters of the log, the folder."""
    folder, environment, filters = os.getcwd(), dict(os.environ), [*logger.filters]
    try:
        yield
    finally:
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        logger.filters[:] = filters
