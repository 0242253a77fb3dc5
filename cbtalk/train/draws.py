"""Random numbers of a batch: drawn on the CPU, then moved to the device without waiting for it."""

import numpy as np
import torch
from torch import Tensor


def batch_generator(seed: int, number: int, stream: int) -> torch.Generator:
    """A generator (on the CPU) of batch `number`'s random numbers; streams of one batch are independent."""
    (state,) = np.random.SeedSequence((seed, number, stream)).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor of the CPU on the device, without waiting for it."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
