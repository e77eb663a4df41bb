"""The tars of a selection."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import psutil
import pytest
import webdataset as wds
from chains import SHARDS, Chain, chain, digest, teacher

from conftest import Dataset, make_jpeg
from semisup.tables import DataError

__all__ = ["chain", "teacher"]


def test_a_source_image_that_changed_since_it_was_indexed_is_not_packed(chain: Chain) -> None:
    selection = pd.read_parquet(chain.select())
    shard = Path(selection.shard[0])
    content = shard.read_bytes()
    shard.write_bytes(
        content.replace(
            make_jpeg(100 * selection.shard_id[0] + selection.sample_index[0])[20:40], b"x" * 20
        )
    )
    with pytest.raises(DataError, match="is not the one that was indexed"):
        chain.pack()
    assert list((chain.folder / "packed" / "tars").iterdir()) == []
    assert list(chain.folder.rglob("*.tmp")) == []


def test_packed_shards_have_the_configured_size_and_deterministic_order(chain: Chain) -> None:
    rows = len(pd.read_parquet(chain.select(k=5)))
    packed = chain.pack(samples_per_shard=4)
    sizes = [shard["num_samples"] for shard in chain.packed_shards()]
    assert sizes == [4] * (rows // 4) + [rows % 4] * (rows % 4 > 0)
    first = digest(packed / "tars" / "00000" / "000000.tar")
    chain.pack(samples_per_shard=4)
    assert digest(packed / "tars" / "00000" / "000000.tar") == first


def test_packed_samples_are_shuffled_by_the_seed(chain: Chain) -> None:
    selection = pd.read_parquet(chain.select(k=20))
    orders = []
    for seed in (1, 2):
        packed = chain.pack(samples_per_shard=100, seed=seed)
        orders.append(pd.read_parquet(packed / "samples-00000.parquet").label.tolist())
    assert sorted(orders[0]) == sorted(orders[1]) == selection.class_id.tolist()
    assert len({tuple(order) for order in [*orders, selection.class_id]}) == 3


def test_the_workers_of_a_killed_packing_end(tmp_path: Path) -> None:
    script = tmp_path / "pack.py"
    script.write_text(
        "import operator, time\n"
        "from semisup.steps.pack_selection import _processes\n"
        "if __name__ == '__main__':\n"
        "    with _processes(2) as each:\n"
        "        list(each(operator.call, [time.sleep] * 2, [600] * 2))\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    workers: list[psutil.Process] = []
    while len(workers) < 2:
        time.sleep(0.1)
        workers = psutil.Process(parent.pid).children()
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(workers, timeout=30)
    assert not alive


def test_a_smaller_selection_leaves_nothing_of_the_larger_one(chain: Chain) -> None:
    """Nor a manifest, which would stand for tars that are gone when the selection grows again."""
    chain.count()
    chain.select(k=5)
    packed = chain.pack(samples_per_shard=2, shards_per_part=1)
    (packed / "tars" / ".00007.tmp").mkdir()
    assert len(list(packed.glob("manifest-*"))) > 2
    chain.select(k=1)
    chain.pack(samples_per_shard=2, shards_per_part=1)
    parts = {path.name.split("-")[1].split(".")[0] for path in packed.glob("*-*")}
    assert {path.name for path in (packed / "tars").iterdir()} == parts
    assert len(parts) == len(list(packed.glob("manifest-*"))) == len(list(packed.glob("samples-*")))


def test_what_a_killed_packing_left_is_cleared(chain: Chain) -> None:
    chain.select(k=5)
    left = chain.folder / "packed" / "tars" / ".00000.tmp" / "000000.tar"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"half a tar")
    packed = chain.pack(samples_per_shard=100)
    assert [path.name for path in (packed / "tars").iterdir()] == ["00000"]
    assert [path.name for path in (packed / "tars" / "00000").iterdir()] == ["000000.tar"]


def test_the_manifest_of_a_part_says_what_its_tars_are(chain: Chain) -> None:
    chain.select(k=5)
    chain.pack()
    for number, shard in enumerate(chain.packed_shards()):
        path = Path(shard["path"])
        assert path.name == f"{number:06d}.tar"
        assert (shard["shard_id"], shard["size_bytes"]) == (number, path.stat().st_size)
        assert shard["sha256"] == digest(path)


@pytest.mark.skipif(not shutil.which("tar"), reason="there is no tar here")
def test_tar_unpacks_the_packed_shards(chain: Chain, tmp_path: Path) -> None:
    """Names and bytes are those of the selection and of the source tars, with no other tool."""
    selection = pd.read_parquet(chain.select(k=5))
    chain.pack(samples_per_shard=4)
    out = tmp_path / "out"
    out.mkdir()
    for shard in chain.packed_shards():
        command = ["tar", "-xf", shard["path"], "-C", out]
        done = subprocess.run(command, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
    for row in selection.itertuples():
        key = f"{row.shard_id:06d}_{row.sample_index:06d}_{row.class_id:05d}"
        image = SHARDS[row.shard_id][row.sample_index][1]["jpg"]
        assert (out / f"{key}.{row.extension}").read_bytes() == image
        assert (out / f"{key}.cls").read_text() == str(row.class_id)
        origin = json.loads((out / f"{key}.json").read_text())
        assert (origin["key"], origin["class_rank"]) == (row.key, row.class_rank)
    assert len(list(out.iterdir())) == 3 * len(selection)


def test_an_image_that_chance_chose_for_a_class_without_a_score_says_so(
    tmp_path: Path, make_dataset: Dataset, teacher: Path
) -> None:
    samples = [(f"{i}", {"jpg": make_jpeg(i), "cls": b"%d" % (i % 2)}) for i in range(20)]
    chain = Chain(tmp_path / "run", make_dataset([samples], 2), teacher)
    chain.score(0, chain.manifests[0])
    selection = pd.read_parquet(chain.select(k=9, variant="random", tags=[2, 0]))
    tars = [str(path) for path in sorted(chain.pack().rglob("*.tar"))]
    origins = [sample["json"] for sample in wds.WebDataset(tars, shardshuffle=False).decode()]
    found = [origin for origin in origins if origin["score"] is None]
    assert 0 < len(found) == selection.score.isna().sum()
    assert all(origin["prediction_rank"] is None for origin in found)


def test_tars_of_a_former_larger_selection_do_not_stay(chain: Chain) -> None:
    chain.select(k=20)
    chain.pack()
    chain.select(k=1)
    packed = chain.pack()
    assert [path.name for path in (packed / "tars").iterdir()] == ["00000"]
