"""One table from the same experiment with several seeds: `summarize.py FOLDER FOLDER ...`.

Each folder holds the results of one run. Accuracies are means with the 95 % interval of the mean
over the seeds (Student's t); differences to the baseline are paired by seed.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

RANKS = (10, 100, 1000, 10_000)


def main(folders: list[Path]) -> None:
    accuracy = pd.concat(
        pd.read_parquet(folder / "evaluations.parquet").assign(seed=folder.name)
        for folder in folders
    )
    top1 = accuracy.pivot_table(index="seed", columns=["dataset", "model", "stage"], values="top1")
    print(f"| on | model | stage | top-1, mean of {len(folders)} seeds | minus baseline |")
    print("|---|---|---|---|---|")
    for dataset, model, stage in top1.columns:
        own = 100 * top1[dataset, model, stage]
        baseline = 100 * top1[dataset]["baseline"]["train"]
        difference = "" if model == "baseline" else f"{_mean(own - baseline, '+')}"
        print(f"| {dataset} | {model} | {stage} | {_mean(own)} % | {difference} |")
    print()
    precisions = [precision_by_rank(folder) for folder in folders]
    for name, values in pd.concat(precisions, axis=1).iterrows():
        print(f"precision of {name}: {_mean(100 * values)} %")
    seconds = [wall_seconds(folder) for folder in folders]
    print(f"wall time: {np.mean(seconds) / 60:.1f} minutes a seed")


def _mean(values: pd.Series, sign: str = "") -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std() / np.sqrt(len(values))
    return f"{values.mean():{sign}.2f} ± {half:.2f}"


def precision_by_rank(folder: Path) -> pd.Series:
    """Share of right images among the best of each class, where U's true classes are known."""
    identity = ["shard_id", "sample_index"]
    paths = sorted(folder.glob("datasets/unlabeled/samples-*.parquet"))
    labels = pd.concat(pd.read_parquet(path, columns=[*identity, "label"]) for path in paths)
    found = {}
    for path in sorted(folder.glob("selections/*/selection.parquet")):
        rows = pd.read_parquet(path).merge(labels, on=identity)
        for rank in [*(r for r in RANKS if r < rows.class_rank.max()), rows.class_rank.max()]:
            best = rows[rows.class_rank <= rank]
            right = (best.label == best.class_id).mean()
            found[f"{path.parent.name}, ranks 1 to {rank}"] = right
    return pd.Series(found)


def wall_seconds(folder: Path) -> float:
    """From the start of the first job to the end of the last."""
    jobs = [(path.stat().st_mtime, path) for path in folder.glob("benchmarks/**/*.tsv")]
    starts = [end - pd.read_csv(path, sep="\t").s[0] for end, path in jobs]
    return max(end for end, _ in jobs) - min(starts)


if __name__ == "__main__":
    main([Path(argument) for argument in sys.argv[1:]])
