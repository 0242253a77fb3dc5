from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk import _native
from cbtalk.errors import BackendError
from cbtalk.ops import flow_warp
from cbtalk.reference import flow_warp as reference
from tests.helpers.checks import assert_op_right, uneven, with_gradients
from tests.helpers.cpp import needs_cpp

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
layouts = pytest.mark.parametrize("layout", list(LAYOUTS))

# (B, N, C), feature size, flow size, occlusion size (None: no occlusion), output size.
CASES = [
    ((2, 1, 19), (12, 9), (5, 4), (3, 6), (12, 9)),  # channels and columns that fill no vector
    ((1, 3, 32), (17, 20), (17, 20), (17, 20), (17, 20)),  # nothing to resize
    ((2, 2, 3), (6, 33), (4, 50), None, (13, 40)),  # a flow that is shrunk, an output of another size
    ((1, 1, 4), (5, 7), (3, 3), (30, 2), (2, 2100)),  # rows longer than a tile
    ((2, 1, 16), (1, 8), (2, 2), (2, 2), (6, 5)),  # a feature of one row
    ((1, 2, 5), (8, 1), (4, 4), (5, 2), (7, 3)),  # a feature of one column
    ((3, 1, 8), (1, 1), (1, 1), (1, 1), (1, 1)),
]


def identity(height: int, width: int) -> Tensor:
    """(1, height, width, 2): every corner-aligned pixel's own coordinates."""
    ys, xs = torch.linspace(-1, 1, height), torch.linspace(-1, 1, width)
    return torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]


def make_inputs(
    batch: tuple[int, int, int],
    size: tuple[int, int],
    flow_size: tuple[int, int],
    occlusion_size: tuple[int, int] | None,
    layout: str = "contiguous",
) -> list[Tensor]:
    B, N, C = batch
    feature = torch.randn(B, C, *size).contiguous(memory_format=LAYOUTS[layout])
    inputs = [feature, torch.rand(B, N, *flow_size, 2) * 2.6 - 1.3]
    return inputs if occlusion_size is None else [*inputs, torch.rand(B, 1, *occlusion_size)]


def assert_within_budget(inputs: list[Tensor], **arguments: Any) -> None:
    """Output and gradients of the C++ kernels against the reference in their dtype, judged in float64."""
    assert_op_right(flow_warp, reference.flow_warp, inputs, **arguments)


def is_dense(tensor: Tensor, layout: str) -> bool:
    return tensor.flatten(0, -4).is_contiguous(memory_format=LAYOUTS[layout])


@pytest.mark.parametrize("align_corners", [True, False])
def test_the_reference_is_resizing_sampling_and_a_product(align_corners: bool) -> None:
    feature, flows, occlusion = (x.double() for x in make_inputs((2, 3, 4), (9, 12), (4, 5), (3, 3)))
    actual = reference.flow_warp(feature, flows, occlusion, size=(7, 8), align_corners=align_corners)
    for n in range(3):
        flow = F.interpolate(flows[:, n].permute(0, 3, 1, 2), size=(7, 8), mode="bilinear", align_corners=True)
        sampled = F.grid_sample(feature, flow.permute(0, 2, 3, 1), align_corners=align_corners)
        occluded = sampled * F.interpolate(occlusion, size=(7, 8), mode="bilinear", align_corners=True)
        torch.testing.assert_close(actual[:, n], occluded)


@layouts
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-to-{case[4]}")
def test_within_the_error_budget(level: str, case: Any, align_corners: bool, layout: str) -> None:
    batch, size, flow_size, occlusion_size, out_size = case
    inputs = make_inputs(batch, size, flow_size, occlusion_size, layout)
    assert_within_budget(inputs, size=out_size, align_corners=align_corners)
    assert is_dense(flow_warp(*inputs, size=out_size, backend="cpp"), layout)


@layouts
@pytest.mark.parametrize("flow_dtype", [torch.float32, torch.bfloat16])
def test_bfloat16_is_float32_arithmetic_rounded_once(level: str, layout: str, flow_dtype: torch.dtype) -> None:
    feature, flow, occlusion = make_inputs((2, 2, 19), (12, 9), (5, 4), (3, 6), layout)
    inputs = [feature.bfloat16(), flow.to(flow_dtype), occlusion.to(flow_dtype)]
    assert_within_budget(inputs)
    wide = flow_warp(inputs[0].float(), flow.to(flow_dtype).float(), occlusion.to(flow_dtype).float(), backend="cpp")
    out = flow_warp(*inputs, backend="cpp")
    assert torch.equal(out, wide.bfloat16())
    assert is_dense(out, layout)


@layouts
def test_the_identity_flow_changes_nothing(level: str, layout: str) -> None:
    # Sizes at which the coordinates are exact in binary.
    feature = torch.randn(2, 19, 33, 17).contiguous(memory_format=LAYOUTS[layout])
    for flow in (identity(33, 17), identity(5, 3), identity(2, 2)):
        assert torch.equal(flow_warp(feature, flow.expand(2, -1, -1, -1), backend="cpp"), feature)
    feature = feature[..., :32, :16]
    xs, ys = (torch.arange(1, 2 * n, 2) / n - 1 for n in (16, 32))  # pixel centres between the outer edges
    centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).expand(2, -1, -1, -1)
    assert torch.equal(flow_warp(feature, centres, align_corners=False, backend="cpp"), feature)


@layouts
@pytest.mark.parametrize(("right", "down"), [(3, 0), (0, -5), (-16, 2), (17, 0)])
def test_a_shift_by_whole_pixels_is_a_slice(level: str, layout: str, right: int, down: int) -> None:
    H, W = 17, 33
    feature = torch.randn(1, 5, H, W).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(H, W) + torch.tensor([2 * right / (W - 1), 2 * down / (H - 1)])
    expected = F.pad(feature, (-right, right, -down, down))
    assert torch.equal(flow_warp(feature, flow, backend="cpp"), expected)


@layouts
def test_occlusion_keeps_and_removes(level: str, layout: str) -> None:
    feature, flow, occlusion = make_inputs((2, 1, 7), (9, 10), (4, 4), (5, 5), layout)
    plain = flow_warp(feature, flow, backend="cpp")
    assert torch.equal(flow_warp(feature, flow, torch.ones_like(occlusion), backend="cpp"), plain)
    assert not flow_warp(feature, flow, torch.zeros_like(occlusion), backend="cpp").any()


@layouts
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wild_coordinates_give_zeros_and_no_gradient(
    level: str, layout: str, align_corners: bool, dtype: torch.dtype
) -> None:
    wild = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e10, -7.0, 2.5]
    feature = torch.randn(1, 19, 11, 13).contiguous(memory_format=LAYOUTS[layout]).to(dtype)
    flow = identity(11, 13).clone() * 0.9
    for i, value in enumerate(wild):
        flow[0, i, i, i % 2] = value
        flow[0, i + 1, i, :] = value
    out, grad_feature, grad_flow = with_gradients(
        flow_warp, [feature, flow], backend="cpp", align_corners=align_corners
    )
    outside = ~(flow.abs() < 2).all(-1)[0]
    assert outside.sum() == 2 * len(wild)
    assert not out[..., outside].any() and not grad_flow[0, outside].any()
    assert out[..., ~outside].any(0).all() and grad_feature.isfinite().all()
    assert_within_budget([feature, flow], align_corners=align_corners)


@layouts
def test_pixels_outside_do_not_see_what_is_not_finite(level: str, layout: str) -> None:
    feature = torch.full((1, 19, 8, 8), float("nan")).contiguous(memory_format=LAYOUTS[layout])
    assert not flow_warp(feature, torch.full((1, 6, 6, 2), -1.9), backend="cpp").any()


@layouts
def test_flows_of_one_source_are_as_if_it_were_repeated(level: str, layout: str) -> None:
    feature, flow, occlusion = make_inputs((2, 4, 6), (9, 7), (5, 4), (3, 3), layout)
    together = flow_warp(feature, flow, occlusion, size=(10, 11), backend="cpp")
    assert together.shape == (2, 4, 6, 10, 11)
    for n in range(4):
        alone = flow_warp(feature, flow[:, n], occlusion, size=(10, 11), backend="cpp")
        assert torch.equal(together[:, n], alone)


@layouts
def test_slices_expanded_batches_and_any_strides_of_the_maps(level: str, layout: str) -> None:
    big = torch.randn(3, 41, 14, 19).contiguous(memory_format=LAYOUTS[layout])
    feature = big[:1, 3:36, 1:12, 2:17].expand(2, -1, -1, -1)
    flow = torch.rand(2, 2, 9, 7).mul(2).sub(1)[:, :, 1:, 1:].permute(0, 2, 3, 1)  # stored as (B, 2, h, w)
    occlusion = torch.rand(2, 1, 5, 8).transpose(2, 3)
    dense = [x.contiguous() for x in (feature, flow, occlusion)]
    dense[0] = dense[0].contiguous(memory_format=LAYOUTS[layout])
    actual = with_gradients(flow_warp, [feature, flow, occlusion], backend="cpp")
    expected = with_gradients(flow_warp, dense, backend="cpp")
    assert is_dense(actual[0], layout)
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@needs_cpp
@layouts
def test_only_the_gradients_asked_for(layout: str) -> None:
    inputs = make_inputs((2, 2, 17), (9, 12), (4, 5), (3, 4), layout)
    _, *complete = with_gradients(flow_warp, inputs, backend="cpp")
    for i in range(3):
        leaves = [x.detach().requires_grad_(i == j) for j, x in enumerate(inputs)]
        out = flow_warp(*leaves, backend="cpp")
        out.backward(uneven(out))
        assert torch.equal(leaves[i].grad, complete[i])  # type: ignore[arg-type]
        assert all(leaf.grad is None for j, leaf in enumerate(leaves) if j != i)


@needs_cpp
@layouts
def test_no_result_depends_on_the_number_of_threads(layout: str) -> None:
    inputs = make_inputs((2, 2, 70), (40, 37), (16, 16), (9, 10), layout)
    before, results = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            results.append(with_gradients(flow_warp, inputs, backend="cpp"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@needs_cpp
@layouts
@pytest.mark.parametrize(("B", "C"), [(0, 4), (2, 0)])
def test_no_images_or_no_channels(layout: str, B: int, C: int) -> None:
    inputs = make_inputs((B, 2, C), (5, 6), (3, 3), (2, 2), layout)
    out, *grads = with_gradients(flow_warp, inputs, backend="cpp")
    assert out.shape == (B, 2, C, 5, 6)
    assert all(grad.shape == x.shape and not grad.any() for grad, x in zip(grads, inputs, strict=True))


@needs_cpp
@settings(max_examples=60, deadline=None)
@given(
    batch=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 35)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    flow_size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    occlusion_size=st.none() | st.tuples(st.integers(1, 12), st.integers(1, 12)),
    out_size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    layout=st.sampled_from(list(LAYOUTS)),
    align_corners=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_any_size_is_right(
    batch: tuple[int, int, int],
    size: tuple[int, int],
    flow_size: tuple[int, int],
    occlusion_size: tuple[int, int] | None,
    out_size: tuple[int, int],
    layout: str,
    align_corners: bool,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    inputs = make_inputs(batch, size, flow_size, occlusion_size, layout)
    actual = flow_warp(*inputs, size=out_size, align_corners=align_corners, backend="cpp")
    exact = reference.flow_warp(*(x.double() for x in inputs), size=out_size, align_corners=align_corners)
    # A position errs by a few roundings of the feature's size; a value by that times its slope.
    torch.testing.assert_close(actual.double(), exact, rtol=0, atol=1e-6 * max(size) * 10)


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_gradcheck(backend: str) -> None:
    feature, flow, occlusion = (x.double().requires_grad_() for x in make_inputs((1, 2, 2), (4, 5), (3, 3), (2, 2)))
    assert torch.autograd.gradcheck(
        lambda *x: flow_warp(*x, size=(5, 4), backend=backend), (feature, flow * 0.6, occlusion)
    )


def test_what_the_kernel_does_not_take_goes_to_the_reference_and_says_why_by_name() -> None:
    feature, flow, occlusion = make_inputs((2, 1, 4), (6, 7), (3, 3), (2, 2))
    flow = flow[:, 0]
    assert flow_warp(feature.double(), flow.double(), occlusion.double()).dtype == torch.float64
    with pytest.raises(BackendError, match="float64" if _native.why_not_cpp() is None else "library"):
        flow_warp(feature.double(), flow.double(), backend="cpp")
    strided = torch.randn(2, 4, 12, 14)[..., ::2, ::2]
    torch.testing.assert_close(flow_warp(strided, flow), flow_warp(strided.contiguous(), flow))
    with pytest.raises(BackendError, match="strides" if _native.why_not_cpp() is None else "library"):
        flow_warp(strided, flow, backend="cpp")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature": torch.zeros(4, 6, 7)}, "feature must be"),
        ({"feature": torch.zeros(2, 4, 0, 7)}, "at least one pixel"),
        ({"flow": torch.zeros(3, 3, 3, 2)}, "flow must be"),
        ({"flow": torch.zeros(2, 3, 3, 3)}, "flow must be"),
        ({"flow": torch.zeros(2, 0, 3, 2)}, "flow must be"),
        ({"occlusion": torch.zeros(2, 2, 3, 3)}, "occlusion must be"),
        ({"size": (0, 4)}, "size must be"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_by_name(change: dict[str, Tensor], message: str) -> None:
    arguments = {"feature": torch.zeros(2, 4, 6, 7), "flow": torch.zeros(2, 3, 3, 2), **change}
    with pytest.raises(ValueError, match=message):
        flow_warp(**arguments)  # type: ignore[arg-type]
