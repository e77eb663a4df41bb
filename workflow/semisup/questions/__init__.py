"""What people ask about results; no rule calls it. Each has a command in the Makefile."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple, cast

import numpy as np
import pyarrow as pa
import yaml

from semisup import schemas, tables
from semisup.checks import ConfigError, load_config
from semisup.config_errors import refuse_repeated_keys
from semisup.plan import Plan, Wildcards
from semisup.rankings import Ranking, left_out, rank_by
from semisup.samples import digest_index
from semisup.scores import digest_scores
from semisup.settings import Select
from semisup.tables import DataError


class Selected(NamedTuple):
    """A selection that was made. ``removed``: REMOVED; ``left_out``: identities, ascending."""

    plan: Plan
    wildcards: Wildcards
    settings: Select
    folder: Path
    parts: list[Path]
    manifests: list[Path]
    ranking: Ranking
    removed: pa.Table
    left_out: np.ndarray


def open_selection(configfile: Path, name: str) -> Selected:
    """Raises DataError when the configuration is wrong, or the selection unknown or not made."""
    try:
        refuse_repeated_keys(configfile)
        plan = Plan(load_config(yaml.safe_load(configfile.read_text())))
    except OSError as error:
        raise DataError(f"{configfile}: cannot be read ({error.strerror}).") from None
    except ConfigError as error:
        raise DataError(f"{configfile}: cannot work:\n{error}") from None
    if name not in plan.config.selections:
        known = ", ".join(plan.config.selections)
        raise DataError(f"{configfile}: no selection {name!r}; there are {known}.")
    folder = Path(plan.results) / "selections" / name
    if not all((folder / name).exists() for name in ("summary.json", "settings.json")):
        raise DataError(
            f"{folder}: the selection is not made yet. "
            f"Run snakemake --profile profiles/local --configfile {configfile} {folder}/settings.json"
        )
    wildcards = cast(Wildcards, SimpleNamespace(selection=name))
    settings = Select.model_validate_json(plan.select(wildcards))
    made_with = tables.read_json(folder / "settings.json")
    if json.loads(settings.canonical()) != made_with.get("settings"):
        raise DataError(
            f"{folder}: made with other settings than {configfile} has now. Run snakemake first."
        )
    parts = [Path(path) for path in plan.selection_scores(wildcards)]
    if digest_scores(parts) != made_with["scores"]:
        raise DataError(
            f"{folder}: the scores were made anew since it was selected. Run snakemake first."
        )
    manifests = [Path(path) for path in plan.selection_manifests(wildcards)]
    index = digest_index(manifests)
    if made_with.get("index", index) != index:  # selections of before were made without it
        raise DataError(
            f"{folder}: the index was made anew since it was selected. Run snakemake first."
        )
    removed = tables.read_table(folder / "removed.parquet", schemas.REMOVED)
    ranking = rank_by(settings, parts, manifests)
    failures = tables.read_table(Path(plan.selection_failures(wildcards)), schemas.FAILURES)
    out = left_out(settings, tables.identity(removed), tables.identity(failures))
    return Selected(plan, wildcards, settings, folder, parts, manifests, ranking, removed, out)
