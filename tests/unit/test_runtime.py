"""Where a training runs, and what it says of a precision that the processor does not know."""

from __future__ import annotations

import warnings

import pytest
import torch

from sonibook.errors import ConfigError, SonibookWarning
from sonibook.training import distributed
from sonibook.training.distributed import Tpu, find_runtime


def processor(monkeypatch: pytest.MonkeyPatch, **able: bool) -> None:
    """Make this look like a machine with one processor that is able to do so much, and no GPU."""
    known = {"architecture": "x86_64", "cpu_name": "Some CPU", "avx2": True, **able}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: known)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for name in ("PJRT_DEVICE", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def test_bfloat16_without_instructions_for_it_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    processor(monkeypatch, avx512_bf16=False, amx_bf16=False)
    with pytest.warns(
        SonibookWarning, match=r"\(Some CPU\) has no instructions for bfloat16.*float32"
    ):
        runtime = find_runtime(precision="bfloat16")
    assert runtime.precision == "bfloat16"  # slow, but what was asked for


@pytest.mark.parametrize(
    ("precision", "able"),
    [("float32", {}), ("bfloat16", {"avx512_bf16": True}), ("bfloat16", {"amx_bf16": True}),
     ("bfloat16", {"bf16": True})],
)  # fmt: skip
def test_nothing_is_said_of_a_precision_that_suits(
    monkeypatch: pytest.MonkeyPatch, precision: str, able: dict[str, bool]
) -> None:
    processor(monkeypatch, **able)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_runtime(precision=precision).precision == precision


def test_a_tpu_is_asked_for_by_torch_tpu_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PJRT_DEVICE", "TPU")
    monkeypatch.setattr(distributed, "find_spec", {"torch_tpu": "found"}.get)
    with pytest.raises(ConfigError, match="torch-tpu finds none on this machine"):
        find_runtime()
    monkeypatch.setattr(Tpu, "_NAME", "meta")  # a device that every machine has
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert find_runtime(precision="bfloat16").device.type == "meta"
        assert torch.get_float32_matmul_precision() == "medium"
        find_runtime()
        assert torch.get_float32_matmul_precision() == "highest"
    finally:
        torch.set_float32_matmul_precision(before)
    monkeypatch.setattr(distributed, "find_spec", {}.get)
    with pytest.raises(ConfigError, match=r"sonibook\[tpu\]"):
        find_runtime()
