"""group_norm with its SiLU against torch's two kernels, at the sizes of the paper's encoder and generator."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case, Inputs, Thunk
from cbtalk.ops import group_norm

GROUPS, EPS = 32, 1e-6
SIZES = [(1, 64, 256), (1, 128, 128), (1, 256, 32)]  # B, C, H = W


def cases() -> list[Case]:
    """The forward pass, then forward and backward."""
    found = []
    for B, C, H in SIZES:
        shape = f"({B}, {C}, {H}, {H})"
        inputs = partial(_inputs, B, C, H)
        found.append(Case(f"group_norm + SiLU {shape}", inputs, _forward, {"group_norm, silu": _torch_forward}, _wrong))
        name = f"group_norm + SiLU {shape}, forward + backward"
        found.append(Case(name, inputs, _backward, {"group_norm, silu": _torch_backward}, _wrong_gradient))
    return found


def _inputs(B: int, C: int, H: int, generator: torch.Generator) -> Inputs:
    x = torch.randn(B, C, H, H, generator=generator).to(memory_format=torch.channels_last)
    return (
        x,
        torch.randn(C, generator=generator),
        torch.randn(C, generator=generator),
        torch.randn(B, C, H, H, generator=generator).to(memory_format=torch.channels_last),
    )


def _ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return group_norm(x, weight, bias, groups=GROUPS, eps=EPS, silu=True)


def _torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))


def _forward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> Thunk:
    return lambda: _ours(x, weight, bias)


def _torch_forward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> Thunk:
    return lambda: _torchs(x, weight, bias)


def _backward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> Thunk:
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    return lambda: torch.autograd.grad(_ours(*leaves), leaves, grad)[0]


def _torch_backward(x: Tensor, weight: Tensor, bias: Tensor, grad: Tensor) -> Thunk:
    leaves = [tensor.clone().requires_grad_() for tensor in (x, weight, bias)]
    return lambda: torch.autograd.grad(_torchs(*leaves), leaves, grad)[0]


def _wrong(inputs: Inputs, result: object) -> str | None:
    x, weight, bias, _ = inputs
    assert isinstance(result, Tensor)
    return _too_far(result, _torchs(x.double(), weight.double(), bias.double()))


def _wrong_gradient(inputs: Inputs, result: object) -> str | None:
    x, weight, bias, grad = (tensor.double() for tensor in inputs)
    x.requires_grad_()
    assert isinstance(result, Tensor)
    return _too_far(result, torch.autograd.grad(_torchs(x, weight, bias), x, grad)[0])


def _too_far(result: Tensor, exact: Tensor) -> str | None:
    error = ((result - exact).norm() / exact.norm()).item()
    return None if error < 1e-6 else f"relative error {error:.1e}"
