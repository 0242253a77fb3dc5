import torch

from cbtalk import ops
from cbtalk.nn import FlowWarp


def test_the_module_is_the_op_with_its_options() -> None:
    feature, flow, occlusion = torch.randn(2, 3, 8, 9), torch.rand(2, 4, 5, 2) * 2 - 1, torch.rand(2, 1, 4, 5)
    torch.testing.assert_close(FlowWarp()(feature, flow, occlusion), ops.flow_warp(feature, flow, occlusion))
    warp = FlowWarp(size=(6, 7), align_corners=False, backend="reference")
    expected = ops.flow_warp(feature, flow, occlusion, size=(6, 7), align_corners=False, backend="reference")
    torch.testing.assert_close(warp(feature, flow, occlusion), expected, rtol=0, atol=0)


def test_one_feature_serves_every_flow_of_the_batch() -> None:
    feature = torch.randn(1, 3, 8, 9).requires_grad_()
    flow = torch.rand(4, 2, 5, 5, 2) * 2 - 1
    warped = FlowWarp()(feature, flow)
    torch.testing.assert_close(warped, ops.flow_warp(feature.repeat(4, 1, 1, 1), flow))
    warped.sum().backward()
    assert feature.grad is not None and feature.grad.shape == feature.shape
