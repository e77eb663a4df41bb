"""Choose the best training of a sweep by its accuracy on held-out images."""

import logging
import shutil
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.steps import run

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

    Of equally good ones the lowest rate is chosen, the closest to what was pretrained.
    """
    rows = []
    for base_lr, path in zip(settings.base_lr, evaluations, strict=True):
        (row,) = tables.read_table(path, schemas.EVALUATIONS).to_pylist()
        rows.append({"base_lr": base_lr, **row, "chosen": False})
    best = min(range(len(rows)), key=lambda i: (-rows[i]["top1"], rows[i]["base_lr"]))
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
