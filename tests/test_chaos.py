from pathlib import Path

import chaos
from small import ROOT


def test_five_kills_end_in_the_bytes_of_a_calm_run(tmp_path: Path) -> None:
    """The short form of `make chaos`."""
    assert chaos.main(tmp_path / "chaos", ROOT / "tests/tiny.yaml", 5, seed=2, is_short=True) == []


def test_stages_are_told_by_their_commands() -> None:
    train = ["python", "-m", "semisup.steps.train", "--weights"]
    assert chaos.stage_of([*train, "results/models/a/pretrain/weights.pt"]) == "pretrain"
    sweep = "results/models/a/finetune/base_lr-0.1"
    assert chaos.stage_of([*train, f"{sweep}/weights.pt"]) == "finetune_candidate"
    evaluate = ["python", "-m", "semisup.steps.evaluate", "--evaluations"]
    assert chaos.stage_of([*evaluate, f"{sweep}/evaluations.parquet"]) == "evaluate_candidate"
    assert chaos.stage_of([*evaluate, "results/evaluations/a/b.parquet"]) == "evaluate"
    assert chaos.stage_of(["bash", "-c", "python -m semisup.steps.select"]) == ""


def test_a_file_that_differs_lacks_or_is_left_over_is_found(tmp_path: Path) -> None:
    for name, content in (("a.parquet", "1"), ("b.tar", "2")):
        for run in ("calm", "storm"):
            path = tmp_path / run / "results" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    calm = chaos.digests(tmp_path / "calm")
    assert chaos.compare(calm, tmp_path / "storm") == []
    results = tmp_path / "storm/results"
    (results / "a.parquet").write_text("other")
    (results / "b.tar").unlink()
    (results / ".b.tar.x.tmp").write_text("")
    problems = "\n".join(chaos.compare(calm, tmp_path / "storm"))
    assert "a.parquet: differs" in problems
    assert "b.tar: missing" in problems
    assert ".b.tar.x.tmp: left over" in problems
