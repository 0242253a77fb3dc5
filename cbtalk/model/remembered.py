"""Values that depend on parameters alone, computed once at inference."""

from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor
from torch._C import _is_any_autocast_enabled, _len_torch_dispatch_stack
from torch._guards import detect_fake_mode
from torch.nn import Parameter

Value = TypeVar("Value")


class Remembered(Generic[Value]):
    """The last value computed from some tensors, for as long as they stay what they were.

    Nothing is remembered while gradients are recorded, so that a graph never holds a value of an earlier step, nor
    under torch.compile, torch.export and fake tensors. Copies and pickles of the owner start empty.
    """

    def __init__(self) -> None:
        self._state: list[Any] | None = None
        self._value: Value | None = None

    def __call__(self, compute: Callable[[], Value], *tensors: Tensor, key: Hashable = None) -> Value:
        """`compute()`, or what it gave when the tensors and the key last were the same."""
        if torch.is_grad_enabled() or torch.compiler.is_compiling() or _may_be_fake(tensors):
            return compute()
        state = _state(key, tensors)
        if self._value is None or self._state != state:
            self._state, self._value = state, compute()
        return self._value

    def __reduce__(self) -> tuple[type["Remembered[Value]"], tuple[()]]:
        return Remembered, ()


def _may_be_fake(tensors: tuple[Tensor, ...]) -> bool:
    """Whether a mode or a subclass makes fake tensors of these; to look for either first saves most of the time."""
    special = _len_torch_dispatch_stack() > 0
    for tensor in tensors:
        special = special or type(tensor) not in (Tensor, Parameter)
    return special and detect_fake_mode(tensors) is not None


def _state(key: Hashable, tensors: tuple[Tensor, ...]) -> list[Any]:
    """Changes whenever the values of the tensors may have: in place, by a move, by a new tensor, or under autocast."""
    state = [key, _is_any_autocast_enabled()]
    for tensor in tensors:
        version = 0 if tensor.is_inference() else tensor._version
        state += tensor.data_ptr(), version, tensor.dtype, tensor.device
    return state
