"""Choose the best training of a sweep by its accuracy on held-out images."""

import logging
import math
import shutil
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.steps import run
from semisup.tables import DataError

log = logging.getLogger("semisup")


def main(
    settings: settings.ChooseCandidate,
    candidates: list[Path],
    evaluations: list[Path],
    weights: Path,
    classes: Path,
    metrics: Path,
    sweep: Path,
) -> None:
    """Copy what the best of ``candidates`` made (their weights; the rest lies beside), list all.

    Of equally good ones the lowest rate is chosen, the closest to what was pretrained; none that
    diverged. Raises DataError where all did.
    """
    rows = []
    for base_lr, path, trained in zip(settings.base_lr, evaluations, candidates, strict=True):
        (row,) = tables.read_table(path, schemas.EVALUATIONS).to_pylist()
        losses = tables.read_table(trained.with_name(metrics.name), schemas.METRICS)["loss"]
        diverged = not math.isfinite(losses[-1].as_py())
        rows.append({"base_lr": base_lr, **row, "diverged": diverged, "chosen": False})
    learnt = [i for i, row in enumerate(rows) if not row["diverged"]]
    if not learnt:
        raise DataError(
            f"all {len(rows)} candidates diverged, the lowest base_lr is {min(settings.base_lr):g}. Add "
            "lower ones to sweep.base_lr."
        )
    best = min(learnt, key=lambda i: (-rows[i]["top1"], rows[i]["base_lr"]))
    rows[best]["chosen"] = True
    for output in (classes, metrics, weights):
        with tables.atomic_path(output) as path:
            shutil.copyfile(candidates[best].with_name(output.name), path)
    columns = {name: [row[name] for row in rows] for name in schemas.SWEEP.names}
    tables.write_table(sweep, columns, schemas.SWEEP)
    log.info(
        "base_lr %g has top1 %.4f, the best of %d",
        rows[best]["base_lr"],
        rows[best]["top1"],
        len(rows),
    )


if __name__ == "__main__":
    run(main)
