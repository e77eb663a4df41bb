"""What Snakemake makes of the repository before any job."""

import subprocess

import pytest
import yaml

from small import ROOT
from snakemakes import SNAKEMAKE, snakemake


def test_a_wrong_configuration_ends_before_any_job_with_one_message(tmp_path):
    config = tmp_path / "config.yaml"
    config.write_text(
        (ROOT / "tests" / "tiny.yaml").read_text().replace("teacher: teacher,", "teacher: teachr,")
    )
    output = snakemake(tmp_path, "--configfile", str(config), check=False)
    assert "selections.top.teacher: 'teachr' does not exist; did you mean teacher?" in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("named", [True, False])
def test_a_key_that_stands_twice_ends_it_before_any_job(tmp_path, named):
    lines = (ROOT / "tests" / "tiny.yaml").read_text().split("\n")
    first = lines.index("  test: {builtin: digits/test}") + 1
    lines.insert(first, "  test: {builtin: digits/validation}")
    config = tmp_path / "config.yaml"
    config.write_text("\n".join(lines))
    output = snakemake(tmp_path, *(["--configfile", str(config)] if named else []), check=False)
    where = config if named else config.name
    assert (
        f"The configuration cannot work:\n  datasets.test: stands 2 times in {where}, in lines "
        f"{first}, {first + 1}; keep one, or rename them.\n"
    ) in output
    assert "Traceback" not in output
    assert not (tmp_path / "results").exists()


def test_the_profiles_name_only_rules_that_exist():
    rules = set(snakemake(ROOT, "--list-rules").split())
    for path in sorted(ROOT.glob("profiles/*/profile.v9+.yaml")):
        profile = yaml.safe_load(path.read_text())
        named = {*profile.get("set-resources", {}), *profile.get("set-threads", {})}
        assert named <= rules, path
        # Snakemake's own scheduler collapses with thousands of ready jobs.
        assert (profile["scheduler"], profile["scheduler-subsample"]) == ("greedy", 500), path


def test_the_literal_slurm_command_finds_its_profile():
    done = subprocess.run(
        [SNAKEMAKE, "--profile", "slurm", "--dry-run", "--quiet"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert done.returncode == 0, done.stderr
