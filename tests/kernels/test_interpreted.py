"""One call of every op in Triton's interpreter, with its gradients; the tests of each op have all sizes and dtypes."""

import pytest
import torch

from cbtalk import _triton
from cbtalk.ops.examples import ON_GPU, named
from tests.helpers.checks import assert_error_budget, assert_op_right

pytestmark = pytest.mark.skipif(
    _triton.why_not_triton(torch.empty(0)) is not None, reason="Triton's interpreter is not chosen, or not installed"
)


@pytest.mark.parametrize("name", [example.name for example in ON_GPU])
def test_value_and_gradients(name: str) -> None:
    example = named(name)
    inputs = example.inputs("cpu", batch=2, **example.small)
    if example.differentiable:
        assert_op_right(example.op, example.reference, inputs, backend="triton")
    else:
        ours, plain = example.op(*inputs, backend="triton"), example.reference(*inputs)
        assert_error_budget(ours, plain, example.reference(*(tensor.double() for tensor in inputs)))
