"""flow_warp outside the feature: the padding modes of grid_sample, with its gradients."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.ops import flow_warp
from cbtalk.reference import flow_warp as reference
from tests.helpers.checks import with_gradients
from tests.helpers.cpp import needs_cpp
from tests.ops.test_flow_warp import (
    CASES,
    LAYOUTS,
    assert_within_budget,
    identity,
    layouts,
    make_inputs,
)

PADDINGS = ("zeros", "border", "reflection")
paddings = pytest.mark.parametrize("padding", PADDINGS)
corners = pytest.mark.parametrize("align_corners", [True, False])


def wide_inputs(case: Any, layout: str) -> list[Tensor]:
    """A flow that reaches up to four images away; so many images that the reference's largest error is no luck."""
    (B, N, C), size, flow_size, occlusion_size, out_size = case
    images = B * max(1, 2000 // (out_size[0] * out_size[1]))
    feature, flow, *occlusion = make_inputs((images, N, C), size, flow_size, occlusion_size, layout)
    return [feature, flow * 3, *occlusion]


@paddings
@corners
def test_the_reference_is_grid_sample(padding: str, align_corners: bool) -> None:
    feature, flow = (x.double() for x in wide_inputs(((2, 1, 4), (9, 12), (7, 8), None, (7, 8)), "contiguous"))
    grad = torch.randn(len(feature), 4, 7, 8, dtype=torch.float64)
    results = []
    ops: list[tuple[Callable[..., Tensor], dict[str, Any]]] = [
        (reference.flow_warp, {"padding": padding, "size": (7, 8)}),
        (F.grid_sample, {"padding_mode": padding}),
    ]
    for op, modes in ops:
        leaves = [feature.clone().requires_grad_(), flow[:, 0].clone().requires_grad_()]
        out = op(*leaves, align_corners=align_corners, **modes)
        results.append([out, *torch.autograd.grad(out, leaves, grad)])
    torch.testing.assert_close(results[0], results[1])


@layouts
@paddings
@corners
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[1]}-to-{case[4]}")
def test_within_the_error_budget(level: str, case: Any, align_corners: bool, padding: str, layout: str) -> None:
    inputs = wide_inputs(case, layout)
    assert_within_budget(inputs, size=case[4], align_corners=align_corners, padding=padding)


@layouts
@paddings
def test_bfloat16_is_float32_arithmetic_rounded_once(level: str, layout: str, padding: str) -> None:
    feature, *maps = wide_inputs(CASES[0], layout)
    half = feature.bfloat16()
    assert_within_budget([half, *maps], padding=padding)
    wide = flow_warp(half.float(), *(x[:, 0] if x.dim() == 5 else x for x in maps), padding=padding, backend="cpp")
    out = flow_warp(half, *(x[:, 0] if x.dim() == 5 else x for x in maps), padding=padding, backend="cpp")
    assert torch.equal(out, wide.bfloat16())


@layouts
@pytest.mark.parametrize(("right", "down"), [(5, 0), (-40, 3), (16, -21), (70, 90)])
def test_a_shift_by_whole_pixels_repeats_the_border_or_its_mirror_image(
    level: str, layout: str, right: int, down: int
) -> None:
    H, W = 17, 33
    feature = torch.randn(1, 5, H, W).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(H, W) + torch.tensor([2 * right / (W - 1), 2 * down / (H - 1)])
    rows, columns = torch.arange(H) + down, torch.arange(W) + right

    def mirrored(at: Tensor, size: int) -> Tensor:
        period = 2 * (size - 1)
        return (at % period).minimum(-at % period)

    border = feature[:, :, rows.clamp(0, H - 1)][..., columns.clamp(0, W - 1)]
    assert torch.equal(flow_warp(feature, flow, padding="border", backend="cpp"), border)
    mirror = feature[:, :, mirrored(rows, H)][..., mirrored(columns, W)]
    assert torch.equal(flow_warp(feature, flow, padding="reflection", backend="cpp"), mirror)


@layouts
@corners
@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_the_border_itself_has_no_gradient(level: str, layout: str, align_corners: bool, padding: str) -> None:
    H, W = 16, 32  # the pixels' centres are exact in binary between the outer edges; between the centres, the border's
    xs, ys = ((torch.arange(1, 2 * n, 2) / n - 1) for n in (W, H))
    centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1)[None]
    flow = identity(H, W) if align_corners else centres
    feature = torch.randn(1, 5, H, W).contiguous(memory_format=LAYOUTS[layout])
    arguments: dict[str, Any] = {"align_corners": align_corners, "padding": padding}
    for op in (reference.flow_warp, lambda *x, **y: flow_warp(*x, **y, backend="cpp")):
        grad_flow = with_gradients(op, [feature, flow], **arguments)[2][0]  # (H, W, 2)
        assert not grad_flow[:, [0, -1], 0].any() and not grad_flow[[0, -1], :, 1].any()
        assert grad_flow[:, 1:-1, 0].all() and grad_flow[1:-1, :, 1].all()


@layouts
@corners
@paddings
def test_what_is_not_finite_gives_zeros_and_no_gradient_and_what_is_large_is_padded(
    level: str, layout: str, align_corners: bool, padding: str
) -> None:
    feature = torch.randn(1, 19, 11, 13).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(11, 13).clone() * 0.9
    for i, value in enumerate([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e10, -7.3, 16777218.0]):
        flow[0, i, i, i % 2] = value
        flow[0, i + 1, i, :] = value
    wild = ~flow.isfinite().all(-1)[0]
    far = (flow.abs() > 2).any(-1)[0] & ~wild
    arguments: dict[str, Any] = {"align_corners": align_corners, "padding": padding}
    out, grad_feature, grad_flow = with_gradients(flow_warp, [feature, flow], backend="cpp", **arguments)
    assert wild.sum() == 6 and not out[..., wild].any() and not grad_flow[0, wild].any()
    assert grad_feature.isfinite().all() and grad_flow.isfinite().all()
    assert out[..., far].any() == (padding != "zeros")
    assert_within_budget([feature, flow], **arguments)


@needs_cpp
@settings(
    max_examples=60, deadline=None, derandomize=True
)  # the budget holds for many elements, not for any draw of few
@given(
    batch=st.tuples(st.integers(2, 4), st.integers(1, 3), st.integers(4, 35)),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    flow_size=st.tuples(st.integers(8, 12), st.integers(8, 12)),
    occlusion_size=st.none() | st.tuples(st.integers(8, 12), st.integers(8, 12)),
    out_size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    layout=st.sampled_from(list(LAYOUTS)),
    align_corners=st.booleans(),
    padding=st.sampled_from(PADDINGS),
    reach=st.sampled_from([0.8, 1.3, 5.0, 100.0]),
    seed=st.integers(0, 2**16),
)
def test_any_size_is_within_the_error_budget(
    batch: tuple[int, int, int],
    size: tuple[int, int],
    flow_size: tuple[int, int],
    occlusion_size: tuple[int, int] | None,
    out_size: tuple[int, int],
    layout: str,
    align_corners: bool,
    padding: str,
    reach: float,
    seed: int,
) -> None:
    torch.manual_seed(seed)
    feature, flow, *occlusion = make_inputs(batch, size, flow_size, occlusion_size, layout)
    inputs = [feature, flow * (reach / 1.3), *occlusion]
    assert_within_budget(inputs, size=out_size, align_corners=align_corners, padding=padding)


@pytest.mark.parametrize("backend", ["reference", "auto", "cpp"])
def test_an_unknown_padding_is_refused(backend: str) -> None:
    feature, flow = make_inputs((1, 1, 2), (3, 3), (3, 3), None)
    with pytest.raises(ValueError, match="'zeros', 'border' or 'reflection', not 'mirror'"):
        flow_warp(feature, flow, padding="mirror", backend=backend)


@needs_cpp
def test_the_raw_op_refuses_an_unknown_number() -> None:
    feature, flow = make_inputs((1, 1, 2), (3, 3), (3, 3), None)
    with pytest.raises(RuntimeError, match="padding must be 0"):
        torch.ops.cbtalk.flow_warp(feature, flow, None, 3, 3, True, 3)
