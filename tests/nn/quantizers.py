"""Quantisers of every kind, and a step of training."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.nn import QuantizedFeatures, VectorQuantize

KINDS: dict[str, dict[str, Any]] = {
    "ema": {},
    "learned": {"ema": None},
    "cosine": {"cosine": True},
    "learned cosine": {"cosine": True, "ema": None},
    "heads": {"heads": 3},
}
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())


def module(options: dict[str, Any] | None = None, codes: int = 10) -> VectorQuantize:
    """A quantiser of 12 channels with codes as large as the features."""
    quantize = VectorQuantize(12, codes, **(options or {}))
    codebook = torch.randn_like(quantize.codebook)
    if quantize.cosine:
        codebook = F.normalize(codebook, dim=-1)
    state = quantize.state_dict() | {"codebook": codebook}
    if quantize.ema is not None:
        state["sums"] = codebook * quantize.counts[..., None]
    quantize.load_state_dict(state)
    return quantize


def train(quantize: VectorQuantize, features: Tensor, **arguments: Any) -> QuantizedFeatures:
    """A call and the gradients of it."""
    found = quantize(features, **arguments)
    (found.quantized.square().sum() + found.loss).backward()
    return found
