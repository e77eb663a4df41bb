"""How this process uses memory: for a step's ``main``, as it concerns all of the process."""

import ctypes
import sys

import pyarrow as pa

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt, in glibc's malloc.h."""


def keep_freed() -> None:
    """Use freed memory again instead of giving it back to the kernel.

    A merge allocates blocks of some MB thousands of times, and so does a network on a CPU. Each time
    anew, the kernel clears them page by page: a quarter of the merge's time where it needs many rows,
    a fifth of a ResNet-50's training (benchmarks/README.md).
    """
    pa.set_memory_pool(pa.system_memory_pool())
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt:
        mallopt(M_MMAP_THRESHOLD, 1 << 30)
        mallopt(M_TRIM_THRESHOLD, 1 << 30)
