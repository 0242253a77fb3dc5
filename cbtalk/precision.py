"""The precision that models compute in, and that of float32 convolutions on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

from cbtalk.errors import ConfigError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

_cudnn: Any = torch.backends.cudnn  # whose settings are not typed


@contextmanager
def float32_convolutions(precision: Literal["ieee", "tf32"] = "ieee") -> Iterator[None]:
    """Convolutions of float32 tensors in float32 ("ieee"), or rounded to 10 bits of mantissa for speed ("tf32").

    torch takes TF32 where nobody says otherwise, and the image of a talker then differs from the CPU's. `cbtalk
    render`, `motion`, `train` and `evaluate` compute in float32, and the keypoint detector does so always: its softmax
    amplifies errors tenfold. For all other use of a `Talker` torch's setting holds, unless this is around it. It
    concerns cuDNN in all threads of the process; it also works as a decorator. A compiled graph does not change the
    setting: put this around its call.
    """
    if torch.compiler.is_compiling():
        yield
        return
    before = _cudnn.conv.fp32_precision, _cudnn.rnn.fp32_precision
    _set(precision, precision)
    try:
        yield
    finally:
        _set(*before)


def dtype_of(precision: str, device: str) -> torch.dtype:
    """The dtype of a precision by its name in `PRECISIONS`, or that of "auto": half only where it was measured faster.

    That is bfloat16 on processors with AMX; everything else, GPUs among it, computes in float32
    (docs/decisions/precision.md).

    Raises:
        ConfigError: the GPU has no such numbers.
    """
    if precision == "auto":
        faster = device == "cpu" and torch.backends.mkldnn.is_available() and torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if faster else torch.float32
    dtype = PRECISIONS[precision]
    on_gpu = device == "cuda" and torch.cuda.is_available()  # not where a cluster's GPUs are meant
    if dtype == torch.bfloat16 and on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise ConfigError(f"--precision bf16: {torch.cuda.get_device_name()} has no bfloat16; take fp16 or fp32")
    return dtype


def _set(conv: str, rnn: str) -> None:
    # Under its older name, for convolutions and recurrent networks together: torch refuses to read one that differs.
    _cudnn.allow_tf32 = conv == "tf32"
    _cudnn.conv.fp32_precision = conv
    _cudnn.rnn.fp32_precision = rnn
