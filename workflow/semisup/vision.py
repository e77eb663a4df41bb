"""torchvision, without the compiler of PyTorch, which it imports though nothing here compiles it.

That takes 1.3 s, a third of the start of a step with a network: for one operator of object detection
(pytorch/vision#8436), and to mark functions that are not to be compiled. Who compiles, imports it then.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import torch.compiler


def is_compile_supported(device_type: str) -> bool:
    """What that operator asks the compiler, should it ever be called."""
    from torch._dynamo.utils import is_compile_supported

    return is_compile_supported(device_type)


def _unmarked(function: Any) -> Any:
    return function


@contextmanager
def _without_compiler() -> Iterator[None]:
    if "torch._dynamo" in sys.modules:
        yield
        return
    asked = ModuleType("torch._dynamo.utils")
    vars(asked)["is_compile_supported"] = is_compile_supported
    sys.modules[asked.__name__] = asked
    mark, torch.compiler.disable = torch.compiler.disable, _unmarked  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.compiler.disable = mark
        del sys.modules[asked.__name__]


with _without_compiler():
    import torchvision
    from torchvision.models import resnet
    from torchvision.transforms import v2

__all__ = ["resnet", "torchvision", "v2"]
