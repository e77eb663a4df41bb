# Makes: `plan`, the wiring that follows from the configuration, or an error naming what is wrong.

import os
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError

PACKAGE = str(Path(workflow.basedir) / "workflow")
sys.path.insert(0, PACKAGE)
# Jobs run `python -m semisup.steps...` with this interpreter and this package, here or on a node.
os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
os.environ["PYTHONPATH"] = PACKAGE

from semisup.checks import ConfigError, load_config
from semisup.plan import Plan

try:
    plan = Plan(load_config(config))
except ConfigError as error:
    raise WorkflowError(f"The configuration cannot work:\n{error}") from None


wildcard_constraints:
    dataset="|".join(plan.config.datasets),
    unlabeled="|".join(plan.config.datasets),
    model="|".join(plan.config.models),
    teacher="|".join(plan.config.models),
    selection="|".join(plan.config.selections) or "$^",
    part=r"\d{5}",
