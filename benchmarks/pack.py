"""One way of packing a selection, in a process of its own: `pack.py WAY FOLDER OUTPUT`.

Prints one line of JSON: seconds, CPU seconds and peak memory, of this process and its children.
"""

import gc
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path

SAMPLES_PER_SHARD = 1000


def ours(folder: Path, output: Path, workers: int = 2) -> None:
    from semisup import images, settings
    from semisup.steps import pack_selection

    pack_selection.main(
        settings.PackSelection(
            part=0,
            num_parts=1,
            first_shard=0,
            num_shards=1000,
            samples_per_shard=SAMPLES_PER_SHARD,
            max_pixels=images.MAX_PIXELS,
            seed=0,
        ),
        folder / "selection.parquet",
        folder / "summary.json",
        output / "tars" / "00000",
        output / "manifest-00000.json",
        output / "samples-00000.parquet",
        workers,
    )


def ours_1_process(folder: Path, output: Path) -> None:
    ours(folder, output, workers=1)


def webdataset_all(folder: Path, output: Path) -> None:
    """Read all, keep what is selected, write: the reader and the ShardWriter of webdataset."""
    read_and_write(sorted((folder / "tars").glob("*.tar")), classes_by_key(folder), output)


def webdataset_2_processes(folder: Path, output: Path) -> None:
    """As DataComp's resharder does: each process its share of the source tars."""
    sources, classes = sorted((folder / "tars").glob("*.tar")), classes_by_key(folder)
    shares = [(sources[i::2], classes, output / str(i)) for i in range(2)]
    with multiprocessing.get_context("fork").Pool(2) as pool:
        pool.starmap(read_and_write, shares)


def classes_by_key(folder: Path) -> dict[str, list[int]]:
    import pandas as pd

    classes = defaultdict(list)
    rows = pd.read_parquet(folder / "selection.parquet", columns=["key", "class_id"])
    for key, class_id in zip(rows.key, rows.class_id, strict=True):
        classes[key].append(class_id)
    return classes


def read_and_write(sources: list[Path], classes: dict[str, list[int]], output: Path) -> None:
    import webdataset as wds

    (output / "tars").mkdir(parents=True)
    paths = [str(path) for path in sources]
    pattern = str(output / "tars" / "%05d.tar")
    with wds.ShardWriter(pattern, maxcount=SAMPLES_PER_SHARD, verbose=0) as writer:
        for sample in wds.WebDataset(paths, shardshuffle=False).shuffle(5000):
            for class_id in classes.get(sample["__key__"], []):
                key = f"{sample['__key__']}_{class_id}"
                writer.write({"__key__": key, "jpg": sample["jpg"], "cls": str(class_id)})


def cp_of_the_output(folder: Path, output: Path) -> None:
    """The floor: what ours wrote, copied."""
    subprocess.run(["cp", "-r", str(output.parent / "ours" / "tars"), str(output)], check=True)


def cp_of_sources(folder: Path, output: Path) -> None:
    """Whole source tars, as many bytes."""
    size = sum(path.stat().st_size for path in (output.parent / "ours").rglob("*.tar"))
    sources = sorted((folder / "tars").glob("*.tar"))
    ends = accumulate(path.stat().st_size for path in sources)
    chosen = sources[: 1 + sum(end < size for end in ends)]
    subprocess.run(["cp", *map(str, chosen), str(output)], check=True)


WAYS: list[Callable[[Path, Path], None]] = [
    ours,
    ours_1_process,
    cp_of_the_output,
    cp_of_sources,
    webdataset_all,
    webdataset_2_processes,
]


def main(way: str, folder: Path, output: Path) -> None:
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    import pandas  # noqa: F401  # pyarrow does when it hands over numpy arrays
    import webdataset  # noqa: F401

    import semisup.steps.pack_selection  # noqa: F401

    gc.collect()
    gc.freeze()  # as a step does: what was imported is no garbage
    wall = time.perf_counter()
    {each.__name__: each for each in WAYS}[way](folder, output)
    os.sync()  # what is not on the disk is not packed
    wall = time.perf_counter() - wall
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    written = sum(path.stat().st_size for path in output.rglob("*.tar"))
    print(
        json.dumps(
            {
                "way": way,
                "seconds": wall,
                "mb_per_second": written / 1e6 / wall,
                "cpu_seconds": sum(each.ru_utime + each.ru_stime for each in usage),
                "peak_mb": max(each.ru_maxrss for each in usage) / 1024,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
