"""The precision of float32 convolutions on a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch

_cudnn: Any = torch.backends.cudnn  # whose settings are not typed


@contextmanager
def float32_convolutions(precision: Literal["ieee", "tf32"] = "ieee") -> Iterator[None]:
    """Convolutions of float32 tensors in float32 ("ieee"), or rounded to 10 bits of mantissa for speed ("tf32").

    torch takes TF32 where nobody says otherwise, and the picture of a talker then differs from the CPU's. `cbtalk
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


def _set(conv: str, rnn: str) -> None:
    # Under its older name, for convolutions and recurrent networks together: torch refuses to read one that differs.
    _cudnn.allow_tf32 = conv == "tf32"
    _cudnn.conv.fp32_precision = conv
    _cudnn.rnn.fp32_precision = rnn
