from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.errors import BackendError
from cbtalk.ops import conv3x3, transform_weight
from cbtalk.reference import conv3x3 as reference
from tests.helpers.checks import assert_error_budget
from tests.helpers.cpp import at_every_level, needs_cpp, use_level


def make(batch: int, channels: int, out: int, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(batch, channels, height, width).contiguous(memory_format=torch.channels_last)
    return x, torch.randn(out, channels, 3, 3) / (3 * channels**0.5), torch.randn(out)


def residual_of(x: Tensor, weight: Tensor, upsample: bool) -> Tensor:
    scale = 2 if upsample else 1
    shape = (x.shape[0], weight.shape[0], x.shape[2] * scale, x.shape[3] * scale)
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


@needs_cpp
@at_every_level
@pytest.mark.parametrize("upsample", [False, True])
@pytest.mark.parametrize("leak", [1.0, 0.0, 0.2])
@pytest.mark.parametrize(
    "sizes",
    [
        (2, 64, 64, 32, 40),
        (1, 128, 64, 34, 67),
        (2, 64, 64, 16, 16),
        (1, 40, 126, 9, 31),
        (1, 256, 80, 7, 8),
        (3, 17, 90, 20, 1),
    ],
)
def test_values_at_every_level(level: str, upsample: bool, leak: float, sizes: tuple[int, ...]) -> None:
    x, weight, bias = make(*sizes)
    residual = residual_of(x, weight, upsample)
    options: dict[str, Any] = {"leak": leak, "upsample": upsample}
    with use_level(level):
        ours = conv3x3(x, weight, bias, residual=residual, backend="cpp", **options)
    torchs = reference.conv3x3(x, weight, bias, residual=residual, **options)
    exact = reference.conv3x3(x.double(), weight.double(), bias.double(), residual=residual.double(), **options)
    assert_error_budget(ours, torchs, exact)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@needs_cpp
@settings(max_examples=40, deadline=None)
@given(
    sizes=st.tuples(*(st.integers(1, high) for high in (3, 40, 40, 12, 12))),
    upsample=st.booleans(),
    plain=st.booleans(),
)
def test_any_size(sizes: tuple[int, ...], upsample: bool, plain: bool) -> None:
    x, weight, bias = make(*sizes)
    residual = None if plain else residual_of(x, weight, upsample)
    ours = conv3x3(x, weight, bias, residual=residual, upsample=upsample, backend="cpp")
    exact = residual if residual is None else residual.double()
    exact = reference.conv3x3(x.double(), weight.double(), bias.double(), residual=exact, upsample=upsample)
    torch.testing.assert_close(ours.double(), exact, rtol=1e-5, atol=1e-5)


@needs_cpp
def test_the_result_does_not_depend_on_the_number_of_threads() -> None:
    x, weight, bias = make(2, 64, 64, 33, 35)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = conv3x3(x, weight, bias, backend="cpp")
        torch.set_num_threads(4)
        assert torch.equal(conv3x3(x, weight, bias, backend="cpp"), alone)
    finally:
        torch.set_num_threads(before)


@needs_cpp
def test_what_is_not_finite_stays_visible_and_local() -> None:
    x, weight, bias = make(1, 64, 64, 16, 16)
    x[0, 3, 5, 5] = float("nan")
    bad = ~conv3x3(x, weight, bias, leak=0.0, backend="cpp").isfinite()
    assert bad[0, :, 4:7, 4:7].all()
    assert not bad[0, :, 9:].any()


def test_gradients_come_from_torch() -> None:
    x, weight, bias = (tensor.double().requires_grad_() for tensor in make(1, 3, 4, 5, 6))
    residual = torch.randn(1, 4, 10, 12, dtype=torch.float64, requires_grad=True)

    def run(*tensors: Tensor) -> Tensor:
        return conv3x3(*tensors[:3], residual=tensors[3], leak=0.2, upsample=True)

    assert torch.autograd.gradcheck(run, (x, weight, bias, residual))


@needs_cpp
def test_why_not() -> None:
    x, weight, bias = make(1, 32, 64, 16, 16)
    for wrong, reason in (
        ((x.contiguous(), weight, bias), "channels_last"),
        ((x.double(), weight.double(), bias.double()), "float32"),
        ((x, weight.clone().requires_grad_(), bias), "gradients"),
    ):
        with pytest.raises(BackendError, match=reason):
            conv3x3(*wrong, backend="cpp")
    with torch.autocast("cpu", dtype=torch.bfloat16), pytest.raises(BackendError, match="autocast"):
        conv3x3(x, weight, bias, backend="cpp")
    with pytest.raises(ValueError, match="not"):
        conv3x3(x, weight[:, :3], bias)


@needs_cpp
@pytest.mark.parametrize("upsample", [False, True])
def test_operator_is_registered_right(upsample: bool) -> None:
    x, weight, bias = make(2, 20, 24, 5, 6)
    packed = transform_weight(weight, 9 if upsample else 16)
    for residual in (None, residual_of(x, weight, upsample)):
        for leaves in ((x, weight, bias), (x.detach().requires_grad_(), weight.detach().requires_grad_(), bias)):
            x, weight, bias = leaves
            arguments = (x, weight, packed, bias, residual, 0.2, upsample)
            torch.library.opcheck(torch.ops.cbtalk.conv3x3.default, arguments)


@needs_cpp
def test_compiles_and_exports() -> None:
    class Layer(torch.nn.Module):
        def forward(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
            return conv3x3(x, weight, bias, leak=0.0, upsample=True, backend="cpp")

    inputs = make(1, 32, 64, 8, 8)
    expected = Layer()(*inputs)
    compiled = torch.compile(Layer(), fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(*inputs), expected)
    torch.testing.assert_close(torch.export.export(Layer(), inputs).module()(*inputs), expected)
