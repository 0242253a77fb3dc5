"""torch's vector functions on the CPU, right from their first call on.

The oneMKL in torch's wheels (2024.2) picks the code of each vector function at that function's first call. Where two
threads make that call at once, one of them may run the low-accuracy code for its share: relative errors of 1e-4, once a
process (pytorch issue 188792; torch 2.13.0, one process in 30 of four at a time on two cores, November 2026). So one
thread calls each of them first.
"""

import torch

_FUNCTIONS = (
    *("acos", "asin", "atan", "cos", "cosh", "erf", "erfc", "exp", "expm1", "log", "log10", "log1p", "log2"),
    *("sin", "sinh", "sqrt", "tan", "tanh"),
)


def settle() -> None:
    """Call every function that torch takes from oneMKL on one element, in float32 and float64."""
    for dtype in (torch.float32, torch.float64):
        half = torch.full((1,), 0.5, dtype=dtype, device="cpu")
        for name in _FUNCTIONS:
            getattr(torch, name)(half)
