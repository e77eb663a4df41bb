# Makes: `plan`, the wiring that follows from the configuration, or an error naming what is wrong;
#        a dry-run that says which key changed.

import os
import sys
from pathlib import Path

from snakemake.logging import logger

PACKAGE_FOLDER = str(Path(workflow.basedir) / "workflow")
sys.path.insert(0, PACKAGE_FOLDER)

from semisup import jobs, orphans, reasons
from semisup.checks import ConfigError, load_config
from semisup.config_errors import refuse_repeated_keys
from semisup.plan import Plan

jobs.prepare(PACKAGE_FOLDER)
if not workflow.is_main_process:
    orphans.leave_marks()
elif message := orphans.left_behind(os.getcwd()):
    print(message, file=sys.stderr)
logger.addFilter(reasons.ExplainChanges())

try:
    for path in workflow.configfiles:
        refuse_repeated_keys(Path(path))
    plan = Plan(load_config(config))
except ConfigError as error:
    sys.exit(f"The configuration cannot work:\n{error}")

if workflow.is_main_process:
    changes = reasons.changes_since(Path(plan.results) / "config.json", plan.report_config())
    if changes:
        logger.info("\n  ".join(["Changed since the last report:", *changes]))


wildcard_constraints:
    dataset="|".join(plan.config.datasets),
    unlabeled="|".join(plan.config.datasets),
    model="|".join(plan.config.models),
    teacher="|".join(plan.config.models),
    selection="|".join(plan.config.selections) or "$^",
    part=r"\d{5}",
