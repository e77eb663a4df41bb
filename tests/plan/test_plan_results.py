from pathlib import Path

from laid_out import TRAINING, lay_out, make


def test_every_stage_that_predicts_the_measured_classes_is_evaluated(tmp_path: Path) -> None:
    (tmp_path / "w.pt").touch()
    weights = {"arch": "resnet18", "weights": str(tmp_path / "w.pt"), "classes": 3}
    plan = make(models__other={**weights, "finetune": TRAINING})
    assert plan.evaluated_stages() == [
        ("teacher", "train"), ("student", "pretrain"), ("student", "finetune"),
        ("baseline", "train"), ("other", "finetune"),
    ]  # fmt: skip


def test_the_report_reads_every_table_once() -> None:
    inputs = make().report_inputs()
    paths = [path for group in inputs.values() for path in group]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("results/") for path in paths)
    assert "results/selections/top/summary.json" in inputs["selections"]
    assert "results/models/student/finetune/metrics.parquet" in inputs["metrics"]


def test_all_paths_begin_with_the_folder_of_results() -> None:
    laid = lay_out(make(results="/elsewhere/out"))
    paths = [path for value in laid.values() if isinstance(value, list) for path in value]
    assert len(paths) > 20
    assert all(path.startswith("/elsewhere/out/") for path in paths)
