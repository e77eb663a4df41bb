"""The environment in which the commands of the rules run, here or on a node."""

import os
import sys


def prepare(package_folder: str) -> None:
    """Let `python -m semisup.steps...` find this interpreter and this package; jobs inherit it."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ["PATH"]])
    os.environ["PYTHONPATH"] = package_folder
    # Idle threads spin some microseconds, then sleep: they share the cores with the loader.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
