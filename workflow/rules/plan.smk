# Makes: `plan`, the wiring that follows from the configuration, or an error naming what is wrong.

import os
import sys
from pathlib import Path

PACKAGE_FOLDER = str(Path(workflow.basedir) / "workflow")
sys.path.insert(0, PACKAGE_FOLDER)

from semisup import jobs, slurm
from semisup.checks import ConfigError, load_config
from semisup.plan import Plan

jobs.prepare(PACKAGE_FOLDER)
if workflow.is_main_process and (message := slurm.left_behind(os.getcwd())):
    print(message, file=sys.stderr)

try:
    plan = Plan(load_config(config))
except ConfigError as error:
    sys.exit(f"The configuration cannot work:\n{error}")


wildcard_constraints:
    dataset="|".join(plan.config.datasets),
    unlabeled="|".join(plan.config.datasets),
    model="|".join(plan.config.models),
    teacher="|".join(plan.config.models),
    selection="|".join(plan.config.selections) or "$^",
    part=r"\d{5}",
