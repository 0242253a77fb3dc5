"""The raw ops, which exported graphs call, refuse a layout that their kernels would read wrongly."""

import pytest
import torch

from cbtalk import _native
from cbtalk.ops import transform_weight

pytestmark = pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp()))

WHOLE = torch.randn(2, 64, 8, 8).contiguous(memory_format=torch.channels_last)
SLICES = {
    "channels": WHOLE[:, :32],
    "columns": WHOLE[:, :, :, :4],
    "rows": WHOLE[:, :, ::2],
    "NCHW": WHOLE.contiguous(),
}
slices = pytest.mark.parametrize("name", SLICES)


@slices
def test_group_norm(name: str) -> None:
    x = SLICES[name]
    weight = torch.ones(x.shape[1])
    with pytest.raises(RuntimeError, match="x must be channels_last"):
        torch.ops.cbtalk.group_norm(x, weight, weight, 2, 1e-6, False)
    dense = x.clone(memory_format=torch.channels_last)
    _, mean, rstd = torch.ops.cbtalk.group_norm(dense, weight, weight, 2, 1e-6, False)
    with pytest.raises(RuntimeError, match="grad_y must be channels_last"):
        torch.ops.cbtalk.group_norm_backward(x, dense, weight, weight, mean, rstd, 2, False)


@slices
def test_conv3x3(name: str) -> None:
    x = SLICES[name]
    weight, bias = torch.randn(x.shape[1], x.shape[1], 3, 3), torch.zeros(x.shape[1])
    packed = transform_weight(weight, 16)
    with pytest.raises(RuntimeError, match="x must be channels_last"):
        torch.ops.cbtalk.conv3x3(x, weight, packed, bias, None, 1.0, False)
    dense = x.clone(memory_format=torch.channels_last)
    with pytest.raises(RuntimeError, match="residual must be channels_last"):
        torch.ops.cbtalk.conv3x3(dense, weight, packed, bias, x, 1.0, False)


@slices
def test_the_gradient_of_flow_warp(name: str) -> None:
    grad = SLICES[name]
    feature = torch.randn(grad.shape).contiguous(memory_format=torch.channels_last)
    flow = torch.zeros(grad.shape[0], 1, *grad.shape[2:], 2)
    with pytest.raises(RuntimeError, match="grad_output must be dense"):
        torch.ops.cbtalk.flow_warp_backward(grad, feature, flow, None, True, 0, True, True, False, False)


def test_flow_warp_of_an_image_that_32_bits_do_not_address() -> None:
    memory = torch.empty(2**31 + 2, dtype=torch.bfloat16)  # none of it is touched
    feature = memory.as_strided((1, 1, 2, 2), (0, 0, 2**31, 1))
    flow = torch.zeros(1, 1, 2, 2, 2)
    with pytest.raises(RuntimeError, match=r"2\^31 elements"):
        torch.ops.cbtalk.flow_warp(feature, flow, None, 2, 2, True, 0)
    grad = torch.zeros(1, 1, 2, 2, dtype=torch.bfloat16)
    with pytest.raises(RuntimeError, match=r"2\^31 elements"):
        torch.ops.cbtalk.flow_warp_backward(grad, feature, flow, None, True, 0, True, True, False, False)


def test_a_single_channel_is_dense_in_every_memory_format() -> None:
    x, one = torch.randn(2, 1, 8, 8), torch.ones(1)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        y, _, _ = torch.ops.cbtalk.group_norm(x.contiguous(memory_format=memory_format), one, one, 1, 1e-6, False)
        torch.testing.assert_close(y, torch.nn.functional.group_norm(x, 1, one, one, 1e-6))
