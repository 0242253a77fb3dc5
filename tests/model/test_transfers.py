import pytest
import torch

from cbtalk.model.transfers import download, upload
from tests.kernels.where import needs_gpu


def test_on_the_cpu_nothing_is_copied() -> None:
    x = torch.randn(3)
    assert upload(x, torch.device("cpu")) is x
    assert download(x).wait()[0] is x


@needs_gpu
@pytest.mark.parametrize("count", [1, 3])
def test_values_come_back_from_a_gpu(count: int) -> None:
    tensors = [torch.randn(1 << 20) for _ in range(count)]
    there = [upload(tensor, torch.device("cuda")) for tensor in tensors]
    for back, tensor in zip(download(*(x + 1 for x in there)).wait(), tensors, strict=True):
        assert torch.equal(back, tensor + 1)
