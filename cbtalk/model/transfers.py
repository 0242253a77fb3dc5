"""Tensors from the CPU to a model's device and back, beside the work of the device."""

from functools import cache

import torch
from torch import Tensor


class Download:
    """Tensors on their way to the CPU."""

    def __init__(self, tensors: list[Tensor], arrival: torch.cuda.Event | None = None) -> None:
        self._tensors, self._arrival = tensors, arrival

    def wait(self) -> list[Tensor]:
        """The tensors, once they are there; from any thread. A GPU's later work is not waited for."""
        if self._arrival is not None:
            self._arrival.synchronize()
        return self._tensors


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on the device: to a GPU by a stream of its own, which what is queued after this waits for."""
    if not tensor.is_cpu or device.type != "cuda":
        return tensor.to(device)
    up, _ = _streams(device)
    with torch.cuda.stream(up):
        there = tensor.pin_memory().to(device, non_blocking=True)
    work = torch.cuda.current_stream(device)
    work.wait_stream(up)
    there.record_stream(work)
    return there


def download(*tensors: Tensor) -> Download:
    """Tensors of one device to the CPU: from a GPU by a stream of its own, once what is queued so far is done.

    torch keeps the pinned memory of copies that are no longer needed, and gives it to the next ones.
    """
    device = tensors[0].device
    if device.type != "cuda":
        return Download([tensor.cpu() for tensor in tensors])
    _, down = _streams(device)
    down.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(down):
        copies = [torch.empty_like(tensor, device="cpu", pin_memory=True) for tensor in tensors]
        for copy, tensor in zip(copies, tensors, strict=True):
            copy.copy_(tensor, non_blocking=True)
            tensor.record_stream(down)
        arrival = torch.cuda.Event(blocking=True)  # who waits leaves its core to the others
        arrival.record(down)
    return Download(copies, arrival)


@cache
def _streams(device: torch.device) -> tuple[torch.cuda.Stream, torch.cuda.Stream]:
    return torch.cuda.Stream(device), torch.cuda.Stream(device)
