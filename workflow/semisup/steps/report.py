"""Write the page a person opens first, and all accuracies in one table."""

import logging
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.config import Config
from semisup.plan import Plan
from semisup.report.accuracy import read_evaluations
from semisup.report.page import gather, render
from semisup.steps import run

log = logging.getLogger("semisup")


def main(
    settings: settings.Report, results: Path, report: Path, evaluations: Path, made_with: Path
) -> None:
    """Read the tables of every stage below ``results``; write the page, the table, the configuration.

    Raises DataError naming the equation when the books do not balance.
    """
    config = Config.model_validate(settings.config).model_copy(update={"results": str(results)})
    plan = Plan(config)
    table = read_evaluations(plan)
    context = gather(plan, table)
    columns = {name: table[name] for name in schemas.EVALUATIONS.names}
    tables.write_table(evaluations, columns, schemas.EVALUATIONS)
    tables.write_json(made_with, settings.config)
    tables.write_bytes(report, render(context).encode())
    log.info("%s", context["headline"])


if __name__ == "__main__":
    run(main)
