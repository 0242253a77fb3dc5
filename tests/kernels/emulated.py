"""A pytest plugin that runs the CUDA C++ kernels on the CPU where the tests mean Triton's interpreter.

`pytest -p tests.kernels.emulated tests/kernels/test_flow_warp.py -k "interpreted and not compile"`

The environment variable CBTALK_PLANT may hold a fault to plant, as JSON: a file in csrc, the text in it to replace, and
what by.
"""

import importlib
import json
import os
from collections.abc import Generator
from typing import Any

import pytest
import torch
from torch import Tensor

import cbtalk.ops  # noqa: F401  defines the ops
from cbtalk import _triton
from cbtalk.errors import BackendError
from tests.kernels import where
from tests.kernels.emulation import build

_overrides = torch.library.Library("cbtalk", "IMPL")  # gone with this object
_OTHER_HEADS = "the CUDA C++ kernels do not take heads of this size"


def pytest_configure() -> None:
    """Put each emulated op in the place of its twin in Triton."""
    plant = json.loads(os.environ["CBTALK_PLANT"]) if "CBTALK_PLANT" in os.environ else None
    library = build.build(plant)
    for op in build.ops():
        schema = str(getattr(torch.ops.cbtalk, op).default._schema)
        torch.library.define(f"cbtalk::{op}_emulated", schema[schema.index("(") :])
    torch.ops.load_library(str(library))
    for op in build.ops():
        emulated = getattr(torch.ops.cbtalk, f"{op}_emulated").default
        _overrides.impl(f"{op}_triton", emulated, "CPU", allow_override=True)
    _triton.why_not_triton = lambda *tensors: None  # Triton itself need not be there
    _restrict_heads()
    where.on_a_gpu = where.everywhere  # here, bfloat16 is as good as on a GPU


def _restrict_heads() -> None:
    attention: Any = importlib.import_module("cbtalk.ops._codebook_attention")
    triton = attention.WHY_NOT["triton"]

    def why_not(query: Tensor, key: Tensor, value: Tensor, heads: int) -> str | None:
        reason: str | None = triton(query, key, value, heads)
        return reason or (None if query.shape[-1] // heads in attention._CUDA_HEADS else _OTHER_HEADS)

    attention.WHY_NOT["triton"] = why_not


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, None, None]:
    """Skip a test of what Triton takes and CUDA C++ does not."""
    try:
        yield
    except BackendError as error:
        if _OTHER_HEADS in str(error):
            pytest.skip(str(error))
        raise
