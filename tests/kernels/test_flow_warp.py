from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.errors import BackendError
from cbtalk.ops import flow_warp
from cbtalk.ops._flow_warp import why_not_triton
from cbtalk.reference import flow_warp as reference
from tests.helpers.checks import assert_error_budget, uneven, with_gradients
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, everywhere, on_a_gpu
from tests.ops.test_flow_warp import LAYOUTS, identity, is_dense, layouts, make_inputs

# (B, N, C), feature size, flow size, occlusion size (None: no occlusion), output size.
CASES = [
    ((2, 1, 19), (12, 9), (5, 4), (3, 6), (12, 9)),  # channels that fill no vector
    ((1, 2, 32), (10, 17), (10, 17), (10, 17), (10, 17)),  # nothing to resize, several tiles, whole vectors
    ((1, 2, 3), (6, 23), (4, 50), None, (7, 40)),  # a flow that is shrunk, an output of another size
    ((1, 1, 136), (5, 7), (3, 3), (9, 2), (2, 30)),  # channels that fill more than one tile
    ((2, 1, 16), (1, 8), (2, 2), (2, 2), (6, 5)),  # a feature of one row
    ((1, 2, 5), (8, 1), (4, 4), (5, 2), (7, 3)),  # a feature of one column
    ((3, 1, 8), (1, 1), (1, 1), (1, 1), (1, 1)),
]


@contextmanager
def deterministic(wanted: bool = True) -> Iterator[None]:
    """For our kernels alone: torch has no deterministic gradient of grid_sample on a GPU, and refuses."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


def assert_within_budget(
    place: Place, inputs: list[Tensor], *, in_fixed_order: bool = False, **arguments: object
) -> None:
    """Output and gradients of a backend against the reference in their dtype, judged in float64."""
    inputs = place.put(*inputs)
    with deterministic(in_fixed_order):
        actual = with_gradients(flow_warp, inputs, backend=place.backend, **arguments)
    expected = with_gradients(reference.flow_warp, inputs, **arguments)
    exact = with_gradients(reference.flow_warp, [x.double() for x in inputs], **arguments)
    for one, other, truth in zip(actual, expected, exact, strict=True):
        assert_error_budget(one, other, truth)


@everywhere
@layouts
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-to-{case[4]}")
def test_within_the_error_budget(place: Place, case: Any, layout: str) -> None:
    batch, size, flow_size, occlusion_size, out_size = case
    inputs = make_inputs(batch, size, flow_size, occlusion_size, layout)
    # Each layout with one of the two: they are different parts of the kernel.
    assert_within_budget(place, inputs, size=out_size, align_corners=layout == "contiguous")
    assert is_dense(flow_warp(*place.put(*inputs), size=out_size, backend=place.backend), layout)


@everywhere
@layouts
@pytest.mark.parametrize("case", [CASES[0], *CASES[4:6]], ids=lambda case: f"{case[1]}-to-{case[4]}")
def test_sums_in_a_fixed_order_are_within_the_error_budget(place: Place, case: Any, layout: str) -> None:
    batch, size, flow_size, occlusion_size, out_size = case
    inputs = make_inputs(batch, size, flow_size, occlusion_size, layout)
    assert_within_budget(place, inputs, in_fixed_order=True, size=out_size)
    if place.device == "cuda":
        inputs = place.put(*inputs)
        with deterministic():
            once, again = (with_gradients(flow_warp, inputs, backend=place.backend, size=out_size) for _ in range(2))
        assert all(torch.equal(one, other) for one, other in zip(once, again, strict=True))


def assert_rounded_once(place: Place, dtype: torch.dtype, flow_dtype: torch.dtype, layout: str) -> None:
    feature, flow, occlusion = make_inputs((1, 2, 24), (12, 9), (5, 4), (3, 6), layout)
    inputs = [feature.to(dtype), flow.to(flow_dtype), occlusion.to(flow_dtype)]
    assert_within_budget(place, inputs)
    inputs = place.put(*inputs)
    out = flow_warp(*inputs, backend=place.backend)
    assert torch.equal(out, flow_warp(*(x.float() for x in inputs), backend=place.backend).to(dtype))
    assert is_dense(out, layout)


@everywhere
@layouts
@pytest.mark.parametrize("flow_dtype", [torch.float32, torch.float16])
def test_float16_is_float32_arithmetic_rounded_once(place: Place, layout: str, flow_dtype: torch.dtype) -> None:
    assert_rounded_once(place, torch.float16, flow_dtype, layout)


@on_a_gpu
@layouts
@pytest.mark.parametrize("flow_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_is_float32_arithmetic_rounded_once(place: Place, layout: str, flow_dtype: torch.dtype) -> None:
    assert_rounded_once(place, torch.bfloat16, flow_dtype, layout)


@on_a_gpu
@layouts
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("C", "side"), [(256, 32), (128, 64), (64, 128)])
def test_shapes_of_the_model(place: Place, C: int, side: int, dtype: torch.dtype, layout: str) -> None:
    feature, flow, occlusion = make_inputs((3, 1, C), (side, side), (64, 64), (64, 64), layout)
    flow = identity(64, 64).unsqueeze(1) * 0.97 + flow * 0.05
    assert_within_budget(place, [feature.to(dtype), flow, occlusion], in_fixed_order=True)


@everywhere
@layouts
def test_the_identity_flow_changes_nothing(place: Place, layout: str) -> None:
    # Sizes at which the coordinates are exact in binary.
    feature = torch.randn(1, 19, 33, 17).contiguous(memory_format=LAYOUTS[layout]).to(place.device)
    for flow in (identity(33, 17), identity(5, 3)):
        flow = flow.to(place.device)
        assert torch.equal(flow_warp(feature, flow, backend=place.backend), feature)
    feature = feature[..., :32, :16]
    xs, ys = (torch.arange(1, 2 * n, 2) / n - 1 for n in (16, 32))  # pixel centres between the outer edges
    centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None].to(place.device)
    assert torch.equal(flow_warp(feature, centres, align_corners=False, backend=place.backend), feature)


@everywhere
@layouts
@pytest.mark.parametrize(("right", "down"), [(3, 0), (-16, -5)])
def test_a_shift_by_whole_pixels_is_a_slice(place: Place, layout: str, right: int, down: int) -> None:
    H, W = 17, 33
    feature = torch.randn(1, 5, H, W).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(H, W) + torch.tensor([2 * right / (W - 1), 2 * down / (H - 1)])
    expected = F.pad(feature, (-right, right, -down, down)).to(place.device)
    assert torch.equal(flow_warp(*place.put(feature, flow), backend=place.backend), expected)


@everywhere
@layouts
def test_flows_of_one_source_are_as_if_it_were_repeated(place: Place, layout: str) -> None:
    inputs = place.put(*make_inputs((2, 2, 6), (9, 7), (5, 4), (3, 3), layout))
    feature, flow, occlusion = inputs
    together = flow_warp(feature, flow, occlusion, size=(10, 11), backend=place.backend)
    assert together.shape == (2, 2, 6, 10, 11)
    for n in range(2):
        alone = flow_warp(feature, flow[:, n], occlusion, size=(10, 11), backend=place.backend)
        assert torch.equal(together[:, n], alone)


@everywhere
@layouts
def test_slices_expanded_batches_and_any_strides_of_the_maps(place: Place, layout: str) -> None:
    for C, first in ((16, 8), (16, 1)):  # vectors, and the same off their boundaries
        big = torch.randn(3, 40, 9, 12).contiguous(memory_format=LAYOUTS[layout]).to(place.device)
        feature = big[:1, first : first + C, 1:8, 2:10].expand(2, -1, -1, -1)
        flow = torch.rand(2, 2, 5, 6).mul(2).sub(1).to(place.device)
        flow = flow[:, :, 1:, 1:].permute(0, 2, 3, 1)  # stored as (B, 2, h, w)
        occlusion = torch.rand(2, 1, 4, 3).to(place.device).transpose(2, 3)
        dense = [x.contiguous() for x in (feature, flow, occlusion)]
        dense[0] = dense[0].contiguous(memory_format=LAYOUTS[layout])
        with deterministic():
            actual = with_gradients(flow_warp, [feature, flow, occlusion], backend=place.backend)
            expected = with_gradients(flow_warp, dense, backend=place.backend)
        assert is_dense(actual[0], layout)
        assert torch.equal(actual[0], expected[0]) and torch.equal(actual[1], expected[1])
        # Off the boundaries of vectors, the sums over the channels may be taken in another order.
        for one, other in zip(actual[2:], expected[2:], strict=True):
            torch.testing.assert_close(one, other)


@everywhere
def test_only_the_gradients_asked_for(place: Place) -> None:
    inputs = place.put(*make_inputs((1, 2, 17), (6, 7), (4, 3), (3, 4), "channels_last"))
    _, *complete = with_gradients(flow_warp, inputs, backend=place.backend)
    for i in range(3):
        leaves = [x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)]
        out = flow_warp(*leaves, backend=place.backend)
        out.backward(uneven(out))
        torch.testing.assert_close(leaves[i].grad, complete[i])
        assert all(leaf.grad is None for j, leaf in enumerate(leaves) if j != i)


@everywhere
@layouts
@pytest.mark.parametrize(("B", "C"), [(0, 4), (2, 0)])
def test_no_images_or_no_channels(place: Place, layout: str, B: int, C: int) -> None:
    inputs = place.put(*make_inputs((B, 2, C), (5, 6), (3, 3), (2, 2), layout))
    out, *grads = with_gradients(flow_warp, inputs, backend=place.backend)
    assert out.shape == (B, 2, C, 5, 6)
    assert all(grad.shape == x.shape and not grad.any() for grad, x in zip(grads, inputs, strict=True))


@everywhere
def test_opcheck(place: Place) -> None:
    suffix = "_triton" if place.backend == "triton" else ""
    forward = getattr(torch.ops.cbtalk, "flow_warp" + suffix)
    backward = getattr(torch.ops.cbtalk, "flow_warp_backward" + suffix)
    feature, flow, occlusion = place.put(*make_inputs((1, 2, 5), (4, 5), (4, 5), (2, 3), "channels_last"))
    half = feature.contiguous().half()[:, 1:, 2:]
    for one, map_, *needed in ((feature, occlusion, False, True, True, False), (half, None, True, False, False, True)):
        out = forward(one, flow, map_, 4, 5, True, 1)
        torch.library.opcheck(forward, (one, flow, map_, 4, 5, True, 1))
        torch.library.opcheck(backward, (out, one, flow, map_, True, 1, *needed))


@everywhere
def test_compiles_whole_forward_and_backward_at_any_size(place: Place) -> None:
    torch._dynamo.reset()

    def step(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
        H, W = feature.shape[2:]
        return flow_warp(feature, flow, occlusion, size=(2 * H, W + 1), backend=place.backend).sin()

    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for B, H in ((2, 8), (3, 11)):
        feature, flows, occlusion = place.put(*make_inputs((B, 1, 4), (H, 7), (5, 6), (4, 3), "channels_last"))
        inputs = [feature, flows[:, 0], occlusion]
        for one, other in zip(with_gradients(compiled, inputs), with_gradients(step, inputs), strict=True):
            torch.testing.assert_close(one, other)


def test_what_triton_does_not_take_is_said() -> None:
    feature, flow, _ = make_inputs((2, 1, 4), (6, 7), (3, 3), (2, 2))
    reasons = [
        why_not_triton(feature.double(), flow),
        why_not_triton(torch.randn(2, 4, 12, 14)[..., ::2, ::2], flow),
        why_not_triton(feature.to("meta"), flow),
    ]
    assert all(reasons)
    with pytest.raises(BackendError, match="triton"):
        flow_warp(feature.double(), flow[:, 0], backend="triton")


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_kernels_compile_without_spills_into_vector_instructions(capability: int) -> None:
    registers = 255 if capability < 90 else 168  # without vector atomics each element has its own address
    for one in compile_in_process("flow_warp", capability):
        assert one.stack == 0 and not one.missing and one.registers <= registers, one
