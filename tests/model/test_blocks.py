import pytest
import torch

from cbtalk.model.blocks import NarrowConv2d


@pytest.mark.parametrize("kernel_size", [3, 7])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_narrow_convolution_is_a_convolution(kernel_size: int, outputs: int, dtype: torch.dtype) -> None:
    conv = NarrowConv2d(5, outputs, kernel_size).to(dtype)
    x = torch.randn(2, 5, 9, 8, dtype=dtype).to(memory_format=torch.channels_last)
    expected = conv(x)  # torch's own, for its gradients
    assert expected.requires_grad
    with torch.inference_mode():
        torch.testing.assert_close(conv(x), expected.detach())
