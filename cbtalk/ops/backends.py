"""Backend selection: the first backend that supports the arguments, or the one asked for by name."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch._C import _are_functorch_transforms_active as _in_functorch
from torch.autograd import forward_ad
from torch.nn import Parameter

from cbtalk import _native
from cbtalk.errors import BackendError

# From a backend's name to a predicate over the op's arguments: the reason against the backend, or None.
WhyNot = Mapping[str, Callable[..., str | None]]

# On the CPU, Triton runs in its interpreter, for tests. On a GPU the order is by counts of instructions until it is
# measured there (docs/decisions/gpu_predictions.md): an op says where Triton comes first.
_ON_CPU = ("cpp", "reference", "cuda", "triton")
_ON_GPU = ("cuda", "triton", "reference", "cpp")
_ON_GPU_TRITON_FIRST = ("triton", "cuda", "reference", "cpp")

_auto = "auto"


def choose(requested: str, why_not: WhyNot, *arguments: Any, triton_first: bool = False) -> str:
    """The name of the backend that runs.

    Args:
        requested: a backend's name, or "auto" for the first in the device's order without a reason against it.
        why_not: the reason against each backend but the reference, asked only until one can run.
        arguments: those of the predicates; the first is a tensor, on the device that decides the order.
        triton_first: whether Triton's kernels come before CUDA C++ on a GPU.

    Raises:
        BackendError: the backend asked for by name cannot run, or there is none of that name.
        TypeError: an argument is a DTensor.
    """
    _refuse_distributed(arguments)
    wanted = _auto if requested == "auto" else requested
    on_gpu = _ON_GPU_TRITON_FIRST if triton_first else _ON_GPU
    order = _ON_CPU if arguments[0].is_cpu else on_gpu
    if wanted == "auto":
        for name in order:
            if (reason := _reason(name, why_not, arguments)) is None:
                return name
            if name == "cpp" and not torch.compiler.is_compiling():
                _native.warn_of_absence(reason)
    if wanted != "reference" and wanted not in why_not:
        known = ", ".join(name for name in order if name == "reference" or name in why_not)
        raise BackendError(f"no backend {wanted!r} for this op; known: auto, {known}")
    if (reason := _reason(wanted, why_not, arguments)) is not None:
        raise BackendError(f"backend {wanted!r} cannot run here: {reason}")
    return wanted


def _reason(name: str, why_not: WhyNot, arguments: tuple[Any, ...]) -> str | None:
    if name == "reference":
        return None
    if name not in why_not:
        return "this op has no such backend"
    if forward_ad._current_level >= 0:
        return "kernels have no forward-mode derivative"
    if torch.compiler.is_compiling() and _in_functorch():
        return "torch.compile does not trace the kernels inside torch.func"
    return why_not[name](*arguments)


def _refuse_distributed(arguments: tuple[Any, ...]) -> None:
    for argument in arguments:
        kind = type(argument)
        if kind is not Tensor and kind is not Parameter and isinstance(argument, Tensor):
            distributed = sys.modules.get("torch.distributed.tensor")
            if distributed is not None and isinstance(argument, distributed.DTensor):
                raise TypeError("the ops of cbtalk take local tensors, not DTensors: call to_local() first")


@contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Makes every op called with backend="auto" use one backend, in all threads: for comparisons and tests."""
    global _auto
    before, _auto = _auto, name
    try:
        yield
    finally:
        _auto = before
