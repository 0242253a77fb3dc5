"""flow_warp beyond the borders of an image: padding, and coordinates that are far out or not finite."""

import pytest
import torch

from cbtalk.ops import flow_warp
from tests.helpers.checks import with_gradients
from tests.kernels.test_flow_warp import CASES, assert_within_budget, deterministic
from tests.kernels.where import Place, everywhere
from tests.ops.test_flow_warp import LAYOUTS, identity, layouts, make_inputs


@everywhere
@layouts
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_padding_is_within_the_error_budget(place: Place, align_corners: bool, padding: str, layout: str) -> None:
    for case in (CASES[1], CASES[4]):
        feature, flow, occlusion = make_inputs(*case[:4], layout)
        inputs = [feature, flow * 3, occlusion]
        # With sums in a fixed order, and without: they are different kernels.
        for in_fixed_order in (True, False):
            assert_within_budget(
                place,
                inputs,
                in_fixed_order=in_fixed_order,
                size=case[4],
                align_corners=align_corners,
                padding=padding,
            )


@everywhere
@layouts
@pytest.mark.parametrize("align_corners", [True, False])
def test_wild_coordinates_give_zeros_and_no_gradient(place: Place, layout: str, align_corners: bool) -> None:
    wild = [float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e10, -7.0, 2.5]
    feature = torch.randn(1, 16, 11, 13).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(11, 13).clone() * 0.9
    for i, value in enumerate(wild):
        flow[0, i, i, i % 2] = value
        flow[0, i + 1, i, :] = value
    outside = ~(flow.abs() < 2).all(-1)[0]
    inputs = place.put(feature, flow)
    with deterministic():
        actual = with_gradients(flow_warp, inputs, backend=place.backend, align_corners=align_corners)
    out, grad_feature, grad_flow = (x.cpu() for x in actual)
    assert not out[..., outside].any() and not grad_flow[0, outside].any()
    assert out[..., ~outside].any(0).all() and grad_feature.isfinite().all()
    assert_within_budget(place, [feature, flow], in_fixed_order=True, align_corners=align_corners)


@everywhere
@layouts
@pytest.mark.parametrize("padding", ["border", "reflection"])
def test_what_is_not_finite_is_not_padded_and_what_is_large_is(place: Place, layout: str, padding: str) -> None:
    feature = torch.randn(1, 16, 11, 13).contiguous(memory_format=LAYOUTS[layout])
    flow = identity(11, 13).clone() * 0.9
    for i, value in enumerate([float("nan"), float("inf"), -float("inf"), 3e38, -3e38, 1e10, -7.3, 16777218.0]):
        flow[0, i, i, i % 2] = value
    wild = ~flow.isfinite().all(-1)[0]
    with deterministic():
        actual = with_gradients(flow_warp, place.put(feature, flow), backend=place.backend, padding=padding)
    out, grad_feature, grad_flow = (x.cpu() for x in actual)
    assert wild.sum() == 3 and not out[..., wild].any() and not grad_flow[0, wild].any()
    assert grad_feature.isfinite().all()
    assert_within_budget(place, [feature, flow], in_fixed_order=True, padding=padding)


@everywhere
@layouts
def test_pixels_outside_do_not_see_what_is_not_finite(place: Place, layout: str) -> None:
    feature = torch.full((1, 8, 8, 8), float("nan")).contiguous(memory_format=LAYOUTS[layout])
    flow, occlusion = torch.full((1, 6, 6, 2), -1.9), torch.full((1, 1, 3, 3), float("inf"))
    assert not flow_warp(*place.put(feature, flow), backend=place.backend).any()
    assert not flow_warp(*place.put(feature.nan_to_num(1.0), flow, occlusion), backend=place.backend).any()
