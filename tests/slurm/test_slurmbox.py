"""The cluster of these tests."""

import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import slurmbox


@pytest.mark.skipif(not slurmbox.IS_ROOT, reason="the other tests show it: they run as a user")
def test_a_user_without_rights_has_a_cluster_too() -> None:
    if lacks := slurmbox.missing():
        pytest.skip(f"no Slurm here: {', '.join(lacks)} missing")
    folder = Path(tempfile.mkdtemp(prefix="box", dir="/tmp"))
    shutil.chown(folder, "nobody", "nogroup")
    script = shutil.copy(slurmbox.__file__, folder)
    become = ["setpriv", "--reuid", "nobody", "--regid", "nogroup", "--clear-groups"]
    become += ["env", "USER=nobody", "LOGNAME=nobody", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"]
    if subprocess.run([*become, "unshare", *slurmbox.FOR_USERS, "true"]).returncode:
        pytest.skip("this kernel lets no user make namespaces")
    job = "hostname; id -un; echo $CUDA_VISIBLE_DEVICES"
    command = ["srun", "-p", "gpu", "-N2", "--gres=gpu:2", "sh", "-c", job]
    done = subprocess.run(
        [*become, "python3", script, folder, *command], cwd="/", text=True, capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.split()) == ["0,1", "0,1", "g1", "g2", "nobody", "nobody"]
    shutil.rmtree(folder)
