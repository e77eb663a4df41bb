"""Find the images of U with the bytes or pixels of an evaluation image, and of an earlier one of U."""

import logging
from collections import Counter
from pathlib import Path

from semisup import schemas, settings, tables
from semisup.copies import Source, copy_columns, same_pixels
from semisup.steps import run

log = logging.getLogger("semisup")


def main(
    settings: settings.FindCopies,
    first_images: Path,
    first_manifest: Path,
    evaluation_images: list[Path],
    evaluation_manifests: list[Path],
    copies: Path,
) -> None:
    """``evaluation_images``, ``evaluation_manifests``: the first part of each set, sets by name."""
    names = sorted(settings.evaluation)
    num_parts = [*(settings.evaluation[name] for name in names), settings.num_parts]
    sources = [
        Source(name, tables.part_paths(images, parts), tables.part_paths(manifest, parts))
        for name, images, manifest, parts in zip(
            [*names, tables.read_json(first_manifest)["dataset"]],
            [*evaluation_images, first_images],
            [*evaluation_manifests, first_manifest],
            num_parts,
            strict=True,
        )
    ]
    columns = copy_columns(sources, same_pixels(sources))
    tables.write_table(copies, columns, schemas.COPIES)
    log.info("copies of images of %s", dict(Counter(columns["first_dataset"].tolist())))


if __name__ == "__main__":
    run(main)
