"""Training, scoring and loading beside timm, torchvision's reference and webdataset.

`compare_networks.py FOLDER`; FOLDER/timm holds train.py and inference.py of timm. Ways interleaved,
medians over the rounds. Checked first: training from tars and from memory has the same losses, bit by
bit; scores hold the images they should; decisions agree.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import network_files
import numpy as np
import pandas as pd

HERE = Path(__file__).parent
ROUNDS = {"resnet18": 2, "resnet50": 1, "resnet152": 2}
TRAIN = [
    "train_ours",
    "train_preloaded",
    "train_timm",
    "train_timm_channels_last",
    "train_torchvision",
]
SCORE = [
    "score_ours", "forward_float32", "score_timm", "score_timm_channels_last",
    "score_ours_bfloat16", "forward_bfloat16",
]  # fmt: skip
LOAD = ["load_ours", "load_webdataset"]
OTHERS = ["score_ours_bfloat16", "score_timm"]
"""Whose decisions are compared with those of ours."""

ALONE = ["score_ours", "forward_float32", "score_ours_bfloat16", "forward_bfloat16"]


def main(folder: Path) -> None:
    network_files.main(folder)
    rows = []
    for arch, ways in (
        ("resnet18", [*LOAD, *SCORE, *TRAIN]),
        ("resnet50", [*SCORE, "train_ours", "train_preloaded", "train_timm_channels_last"]),
        ("resnet152", ALONE),  # where the network takes most of the time
    ):
        for _ in range(ROUNDS[arch]):
            rows += [measure(folder, way, arch) for way in ways]
        check_losses(rows, arch)
        print(summary(rows, arch))
        print(agreement(folder, arch, [way for way in OTHERS if way in ways]))
    print(damaged(folder))
    for row in rows:
        row.pop("losses", None)
    (HERE / "results").mkdir(exist_ok=True)
    (HERE / "results" / "networks.json").write_text(json.dumps(rows, indent=1) + "\n")


def measure(folder: Path, way: str, arch: str) -> dict:
    environment = dict(os.environ)
    if "ours" in way or "preloaded" in way or "forward" in way:
        environment["GOMP_SPINCOUNT"] = "10000"  # as the rules run their steps
    output = folder / "output" / f"{way}-{arch}"
    command = [sys.executable, str(HERE / "networks.py"), way, arch, str(folder), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{way} failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


def check_losses(rows: list[dict], arch: str) -> None:
    losses = [row["losses"] for row in rows if row["arch"] == arch and "losses" in row] or [[]]
    if any(each != losses[0] for each in losses):
        sys.exit("training from tars and from memory differ")


def summary(rows: list[dict], arch: str) -> str:
    frame = pd.DataFrame(rows)
    rates = frame[frame.arch == arch].groupby("way", sort=False).images_per_second
    table = rates.agg(["median", "min", "max"])
    for kind in ("train", "score", "load"):
        if f"{kind}_ours" in table.index:
            ours = table.loc[f"{kind}_ours", "median"]
            mine = [name for name in table.index if name.startswith((kind, "forward"))]
            table.loc[mine, f"ours / it, {kind}"] = ours / table.loc[mine, "median"]
    return f"{arch}\n{table.round(3).to_string()}"


def decisions(folder: Path, way: str, arch: str) -> pd.Series:
    """The best class of each image, by the name of its file."""
    output = folder / "output" / f"{way}-{arch}"
    if "timm" in way:
        (path,) = output.glob("*.parquet")
        table = pd.read_parquet(path).reset_index()
        names = table.filename.map(lambda name: Path(name).stem)
        return pd.Series(np.stack(table["index"])[:, 0], names).sort_index()
    data = "damaged" if "damaged" in way else "whole"
    keys = pd.read_parquet(folder / data / "samples-00000.parquet")
    keys = keys.set_index(["shard_id", "sample_index"]).key
    rows = pd.read_parquet(output / "part-00000.parquet")
    rows = rows[rows.prediction_rank == 1].set_index(["shard_id", "sample_index"])
    return pd.Series(rows.class_id.to_numpy(), keys.loc[rows.index].to_numpy()).sort_index()


def agreement(folder: Path, arch: str, ways: list[str]) -> str:
    exact = decisions(folder, "score_ours", arch)
    lines = [f"equal decisions, {arch}, {len(exact)} images:"]
    for way in ways:
        other = decisions(folder, way, arch)
        assert list(other.index) == list(exact.index)
        lines.append(f"  {way}: {100 * (other == exact).mean():.2f} %")
    return "\n".join(lines)


def damaged(folder: Path) -> str:
    """What becomes of the images that cannot be decoded."""
    exact = decisions(folder, "score_ours", "resnet18")
    bad = [f"{i:05d}" for i in range(len(exact)) if i % 100 == 7]
    lines = [f"{len(bad)} of {len(exact)} images damaged:"]
    for way in ("score_ours_damaged", "score_timm_damaged"):
        try:
            measure(folder, way, "resnet18")
        except SystemExit as error:
            lines.append(f"  {way} ends: {str(error).splitlines()[-1]}")
            continue
        found = decisions(folder, way, "resnet18")
        whole = found.index.difference(bad)
        right = (found[whole] == exact[whole]).mean()
        wrong = found.index.intersection(bad)
        lines.append(
            f"  {way}: {len(found)} rows, {len(wrong)} of them for damaged images; "
            f"{100 * right:.2f} % of the others as before"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
