"""Peers that are not always there: a compiler, or a package; a string says why one is absent."""

import importlib.util
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from bench.case import Prepare, timed

COMPILED = "torch.compile"

P = ParamSpec("P")
R = TypeVar("R")

_SDPA = {
    "SDPA math": SDPBackend.MATH,
    "SDPA flash": SDPBackend.FLASH_ATTENTION,
    "SDPA efficient": SDPBackend.EFFICIENT_ATTENTION,
    "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
}
_ON_CPU = ("SDPA math", "SDPA flash")


def package(module: str, name: str, prepare: Prepare) -> Prepare | str:
    """`prepare`, or the reason where the module cannot be found. It imports the module itself."""
    return prepare if importlib.util.find_spec(module) else f"{name} is not installed"


def compile_here(function: Callable[P, R]) -> Callable[P, R]:
    """The function under torch.compile; it compiles at its first call, which no one times."""
    # Each size compiles anew; past the limit of 8 the function would quietly run uncompiled.
    torch._dynamo.config.recompile_limit = 1000
    return torch.compile(function, dynamic=False)


def compiled(function: Callable[..., Tensor], direction: str) -> Prepare:
    """Prepares the function under torch.compile; the compiler itself takes seconds to import, where it is asked for."""
    return lambda *inputs: timed(compile_here(function), direction)(*inputs)


def sdpa_backends(
    function: Callable[..., Tensor], direction: str, layout: Callable[[Tensor], Tensor], device: str
) -> dict[str, Prepare | str]:
    """`function` confined to each backend of scaled_dot_product_attention."""

    def confined(backend: SDPBackend) -> Callable[..., Tensor]:
        def call(*inputs: Tensor) -> Tensor:
            with sdpa_kernel(backend):
                return function(*inputs)

        return call

    return {
        name: timed(confined(backend), direction, layout)
        if device == "cuda" or name in _ON_CPU
        else "torch has it on GPUs only"
        for name, backend in _SDPA.items()
    }
