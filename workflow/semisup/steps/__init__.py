"""One module per command the rules run: arguments and files only; the computing is elsewhere.

Each has a plain function ``main`` whose annotated parameters are its command line:
``settings`` is one of :mod:`semisup.settings`, given as JSON; the others are paths and numbers.
"""

import argparse
import atexit
import gc
import inspect
import logging
import os
import sys
from collections.abc import Callable
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Any, NoReturn

from semisup.settings import Settings
from semisup.tables import DataError

_WORKER_ENDED = (
    "a worker process was killed. Most often memory ran out: give the job more (mem_mb), or fewer "
    "threads, each of which is a worker."
)


def run(main: Callable[..., None]) -> NoReturn:
    """Call ``main`` with the arguments of the command line, and exit."""
    gc.freeze()
    gc.enable()
    try:
        status = status_of(main)
    finally:
        gc.unfreeze()  # else bindings call what is left at the end leaked, page after page
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # at once: to take PyTorch apart piece by piece would take Python a second


def status_of(main: Callable[..., None]) -> int:
    """The exit status of ``main`` with the arguments of the command line.

    A DataError, or the death of a worker process, is printed as one message, with status 1;
    anything else is a bug and keeps its traceback.
    """
    logging.basicConfig(
        format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.INFO, stream=sys.stderr
    )
    parser = argparse.ArgumentParser(description=inspect.getdoc(main), allow_abbrev=False)
    for name, parameter in inspect.signature(main).parameters.items():
        _add_argument(parser, name, parameter.annotation, parameter.default)
    try:
        main(**vars(parser.parse_args()))
    except DataError as error:
        print("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    except RuntimeError as error:
        # That of a loader has no class of its own, and comes at any moment.
        if not isinstance(error, BrokenExecutor) and "DataLoader worker (pid" not in str(error):
            raise
        print(f"error: {_WORKER_ENDED} ({str(error).strip()})", file=sys.stderr)
        return 1
    return 0


def _add_argument(parser: argparse.ArgumentParser, name: str, kind: Any, default: Any) -> None:
    required = default is inspect.Parameter.empty
    options: dict[str, Any] = {"required": required, "default": None if required else default}
    if kind == list[Path]:
        options |= {"type": Path, "nargs": "*"}
    elif isinstance(kind, type) and issubclass(kind, Settings):
        options |= {"type": kind.model_validate_json, "metavar": "JSON"}
    else:
        options |= {"type": kind}
    parser.add_argument(f"--{name.replace('_', '-')}", **options)
