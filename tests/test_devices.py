"""What networks run on."""

import pytest
import torch

from semisup import devices


def test_numerics_name_precision_device_and_version() -> None:
    version = torch.__version__.split("+")[0]
    if not torch.cuda.is_available():
        assert devices.numerics("auto") == f"float32 on cpu, torch {version}"
        assert devices.numerics("bfloat16") == f"bfloat16 on cpu, torch {version}"


@pytest.mark.parametrize(
    ("capability", "allowed", "name"),
    [
        ((9, 0), True, "float32 (convolutions in TF32)"),
        ((9, 0), False, "float32"),
        ((7, 0), True, "float32"),
    ],
)
def test_float32_is_called_tf32_where_it_is(
    monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], allowed: bool, name: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: capability)
    with torch.backends.cudnn.flags(allow_tf32=allowed):
        assert devices.numerics("float32").startswith(f"{name} on cuda, ")
        assert devices.numerics("auto").startswith("bfloat16 on cuda, ")
