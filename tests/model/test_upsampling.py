"""Upsampling and convolving at once: the values of all ways, and which way is taken."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cbtalk.model import upsampling
from cbtalk.model.blocks import Conv3x3
from cbtalk.model.upsampling import by_phases, phase_weight, transposed, transposed_weight, way_of
from tests.helpers.checks import assert_error_budget
from tests.helpers.talkers import MakeTalker
from tests.model.test_talker import images

LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
WAYS: list[tuple[Callable[[Tensor], Tensor], Callable[[Tensor, Tensor, Tensor], Tensor]]] = [
    (transposed_weight, transposed),
    (phase_weight, by_phases),
]
BY_WAY = pytest.mark.parametrize(("prepare", "convolve"), WAYS, ids=["transposed", "phases"])


def make(sizes: tuple[int, ...], layout: str, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    batch, channels, outputs, height, width = sizes
    x = torch.randn(batch, channels, height, width, dtype=torch.float64).to(memory_format=LAYOUTS[layout])
    weight = torch.randn(outputs, channels, 3, 3, dtype=torch.float64) / (3 * channels**0.5)
    return x.to(dtype), weight.to(dtype), torch.randn(outputs, dtype=torch.float64).to(dtype)


def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


@BY_WAY
@settings(max_examples=60, deadline=None)
@given(sizes=st.tuples(*(st.integers(1, high) for high in (3, 5, 5, 9, 9))), layout=st.sampled_from(list(LAYOUTS)))
def test_any_size(prepare: Any, convolve: Any, sizes: tuple[int, ...], layout: str) -> None:
    x, weight, bias = make(sizes, layout, torch.float64)
    expected = plain(x, weight, bias)
    torch.testing.assert_close(convolve(x, prepare(weight), bias), expected, rtol=1e-12, atol=1e-12)
    no_bias = torch.zeros_like(bias)
    torch.testing.assert_close(convolve(x, prepare(weight), no_bias), plain(x, weight, no_bias), rtol=1e-12, atol=1e-12)


@BY_WAY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("sizes", [(2, 64, 48, 16, 16), (1, 160, 8, 7, 9), (2, 3, 5, 8, 1)], ids=str)
def test_errors_are_those_of_the_dtype(prepare: Any, convolve: Any, sizes: tuple[int, ...], dtype: torch.dtype) -> None:
    x, weight, bias = make(sizes, "NHWC", dtype)
    exact = plain(x.double(), weight.double(), bias.double())
    assert_error_budget(convolve(x, prepare(weight), bias), plain(x, weight, bias), exact)


def test_the_result_has_the_layout_of_the_image() -> None:
    x, weight, bias = make((2, 16, 8, 5, 6), "NHWC", torch.float32)
    result = by_phases(x, phase_weight(weight), bias)
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_what_is_not_finite_stays_where_it_belongs() -> None:
    x, weight, bias = make((1, 4, 4, 8, 8), "NHWC", torch.float32)
    x[0, 1, 3, 5] = float("nan")
    found, expected = by_phases(x, phase_weight(weight), bias), plain(x, weight, bias)
    assert torch.equal(found.isnan(), expected.isnan())


def test_phases_are_taken_on_gpus_at_inference() -> None:
    weight = torch.empty(4, 4, 3, 3)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        image = torch.empty(1, 4, 8, 8, device="cuda")
        assert way_of(image, weight) == way_of(image.bfloat16(), weight.bfloat16()) == "phases"
        assert way_of(torch.empty(1, 4, 7, 8, device="cuda"), weight) == "op"
        with torch.enable_grad():
            assert way_of(image, weight) == "op"


def test_phases_are_taken_nowhere_else() -> None:
    image, weight = torch.empty(1, 4, 8, 8), torch.empty(4, 4, 3, 3)
    with torch.no_grad():
        assert way_of(image, weight) == way_of(image.half(), weight.half()) == "op"
        assert way_of(image.to("meta"), weight.to("meta")) == "op"
        assert way_of(image.bfloat16(), weight.bfloat16()) == "transposed"
    assert way_of(image.bfloat16(), weight.bfloat16()) == "op"


def test_compilers_get_the_op(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True):
        assert way_of(torch.empty(1, 4, 8, 8, device="cuda"), torch.empty(4, 4, 3, 3)) == "op"


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The CPU's tensors go the way of a GPU's; the ways that were asked for."""
    taken: list[str] = []

    def way(x: Tensor, weight: Tensor) -> str:
        taken.append("op" if torch.is_grad_enabled() else "phases")
        return taken[-1]

    monkeypatch.setattr(upsampling, "way_of", way)
    return taken


class Foldings(TorchDispatchMode):
    """Counts how often taps are summed."""

    count = 0

    def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += op is torch.ops.aten.avg_pool2d.default
        return op(*args, **(kwargs or {}))


def test_taps_are_summed_once_for_each_weight(as_on_a_gpu: list[str]) -> None:
    layer = Conv3x3(6, 5, upsample=True)
    x = torch.randn(1, 6, 8, 8)
    with torch.no_grad(), Foldings() as foldings:
        first = layer(x)
        assert torch.equal(layer(x), first) and foldings.count == 1
        layer.weight.mul_(2)
        torch.testing.assert_close(layer(x), plain(x, layer.weight, layer.get_parameter("bias")))
        assert foldings.count == 2
    assert layer(x).requires_grad and as_on_a_gpu[-1] == "op"


def test_autocast_decides_the_dtype(as_on_a_gpu: list[str]) -> None:
    layer, x = Conv3x3(6, 5, upsample=True), torch.randn(1, 6, 8, 8)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = layer(x)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), layer(x).detach(), rtol=0.05, atol=0.05)


def test_a_talker_makes_the_same_images(tiny: MakeTalker, as_on_a_gpu: list[str]) -> None:
    talker = tiny().double()
    source, driving = (images(count, talker.image_size).double() for count in (1, 2))

    def animated() -> Tensor:
        return talker.animate(talker.encode_source(source), driving).detach()

    expected = animated()
    with torch.no_grad():
        torch.testing.assert_close(animated(), expected, rtol=1e-9, atol=1e-9)
    assert {"op", "phases"} <= set(as_on_a_gpu)
