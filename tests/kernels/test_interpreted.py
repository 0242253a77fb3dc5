"""One call of every op in Triton's interpreter, with its gradients; the tests of each op have all sizes and dtypes."""

import pytest
import torch
from torch import Tensor

from cbtalk import _triton
from cbtalk.ops.examples import ON_GPU, Example, named
from tests.helpers.checks import assert_error_budget

pytestmark = pytest.mark.skipif(
    _triton.why_not_triton(torch.empty(0)) is not None, reason="Triton's interpreter is not chosen, or not installed"
)


def results(example: Example, inputs: tuple[Tensor, ...], **backend: str) -> list[Tensor]:
    """The value of an op, and the gradient of each input where the op has one."""
    leaves = [tensor.detach().requires_grad_(example.differentiable) for tensor in inputs]
    op = example.op if backend else example.reference
    value = op(*leaves, **backend)
    if not example.differentiable:
        return [value]
    grad = torch.linspace(-1, 2, value.numel(), dtype=value.dtype).view(value.shape)
    return [value.detach(), *torch.autograd.grad(value, leaves, grad)]


@pytest.mark.parametrize("name", [example.name for example in ON_GPU])
def test_value_and_gradients(name: str) -> None:
    example = named(name)
    inputs = example.inputs(batch=2, **example.small)
    ours = results(example, inputs, backend="triton")
    plain = results(example, inputs)
    exact = results(example, tuple(tensor.double() for tensor in inputs))
    for one, other, truth in zip(ours, plain, exact, strict=True):
        assert_error_budget(one, other, truth)
