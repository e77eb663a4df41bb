"""What passes made of single tars: files named by what the tars hold, whatever their place in U.

A tar put before the others moves all of them by one: each is found again, in whatever part it now is.
"""

import hashlib
from collections.abc import Iterable
from pathlib import Path

from semisup import tables


def commit_path(work: Path, sha256: str, with_what: str) -> Path:
    """Of a tar with this digest: in one of 256 folders, as there may be a hundred thousand."""
    digest = hashlib.sha256(with_what.encode()).hexdigest()
    return work / sha256[:2] / f"{sha256[:32]}-{digest[:32]}.parquet"


def remove_others(paths: Iterable[Path]) -> None:
    """Remove what was made of these tars with something else, and what its writers left half written."""
    for path in set(paths):
        of_tar = path.name.split("-")[0]
        for other in path.parent.glob(f"{of_tar}-*"):
            if other != path:
                other.unlink(missing_ok=True)
        for temporary in path.parent.glob(f".{of_tar}-*.tmp"):
            tables.remove_if_abandoned(temporary)


def remove_unused(work: Path, sha256s: Iterable[str]) -> None:
    """Remove what was made of other tars than those with these digests: they have left U."""
    used = {sha256[:32] for sha256 in sha256s}
    for path in work.glob("*/*"):
        if path.name.lstrip(".").split("-")[0] not in used:
            path.unlink(missing_ok=True)
