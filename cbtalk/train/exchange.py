"""Exchanges between the processes of a run while they train; a process alone keeps what it has."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.distributed as dist
from torch import Tensor

from cbtalk.errors import LostProcess
from cbtalk.nn.processes import place

BUCKET_BYTES = 32 << 20  # of tensors that are sent together: fewer messages, and no second copy of all gradients


def average(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors by their means over the processes, each of which calls this with the same shapes in one order.

    Raises LostProcess where another process has ended.
    """
    count = place()[1]
    for bucket in _buckets(tensors) if count > 1 else ():
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        with _heard():
            dist.all_reduce(flat)
        means = (flat / count).split([tensor.numel() for tensor in bucket])
        torch._foreach_copy_(bucket, [mean.view_as(tensor) for mean, tensor in zip(means, bucket, strict=True)])


def mean(tensor: Tensor) -> Tensor:
    """The mean of a tensor over the processes, of which autograd knows nothing. Raises LostProcess."""
    result = tensor.detach().clone()
    average([result])
    return result


def spread(tensors: Sequence[Tensor]) -> None:
    """Replaces tensors by those of the first process. Raises LostProcess."""
    for tensor in tensors if place()[1] > 1 else ():
        with _heard():
            dist.broadcast(tensor, src=0)


def greatest(*numbers: int) -> list[int]:
    """The greatest of each number over the processes; all of them wait here for the last. Raises LostProcess."""
    if place()[1] == 1:
        return list(numbers)
    message = torch.tensor(numbers)  # on the CPU: whatever the device has queued is not waited for
    with _heard():
        dist.all_reduce(message, dist.ReduceOp.MAX)
    return message.tolist()


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        bucket.append(tensor)
        size += tensor.nbytes
        if size >= BUCKET_BYTES:
            yield bucket
            bucket, size = [], 0
    if bucket:
        yield bucket


@contextmanager
def _heard() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcess("another process of this run ended, or cannot be reached") from error
