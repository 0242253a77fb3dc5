"""Test weights and images that follow from names alone, so that the golden figures can be recomputed anywhere."""

import zlib
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

IMAGE_SIZE = 256
WAVES = 24


def _stream(name: str) -> np.random.RandomState:
    return np.random.RandomState(zlib.crc32(name.encode()))


def normals(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 standard normals drawn for `name`."""
    return _stream(name).standard_normal(int(np.prod(shape)) or 1).reshape(shape)


Rule = Callable[[np.ndarray, tuple[int, ...]], np.ndarray]

# The first rule whose suffix (or, with a dot at its end, prefix) fits the name decides how normals become a tensor.
_BY_SUFFIX: tuple[tuple[str, Rule], ...] = (
    ("running_var", lambda x, shape: np.exp(0.2 * x)),
    ("running_mean", lambda x, shape: 0.1 * x),
    ("kp_detector.jacobian.weight", lambda x, shape: 0.2 * x / np.sqrt(np.prod(shape[1:]))),
    ("kp_detector.jacobian.bias", lambda x, shape: np.tile([1.0, 0.0, 0.0, 1.0], shape[0] // 4) + 0.05 * x),
    ("kp_detector.kp.weight", lambda x, shape: 1.5 * x / np.sqrt(np.prod(shape[1:]))),
    ("dense_motion_network.mask.weight", lambda x, shape: 2.0 * x / np.sqrt(np.prod(shape[1:]))),
    ("embedding.weight", lambda x, shape: 0.5 * x),
)


def tensor(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The float64 values of the parameter or buffer of this released name."""
    x = normals(name, shape)
    for suffix, rule in _BY_SUFFIX:
        if name.endswith(suffix):
            return rule(x, shape)
    if name.startswith("position_emb"):
        return 0.1 * x
    if name.endswith("bias"):
        return 0.05 * x
    if len(shape) == 1:
        return 1.0 + 0.1 * x
    return np.sqrt(1.5 / np.prod(shape[1:])) * x


def fill(module: nn.Module, prefix: str = "") -> None:
    """Gives every entry of the module's state dict its test value; counters and anti-alias kernels stay as they are."""
    with torch.no_grad():
        for name, entry in module.state_dict().items():
            if not name.endswith(("num_batches_tracked", "down.weight")):
                entry.copy_(torch.from_numpy(np.asarray(tensor(prefix + name, tuple(entry.shape)), dtype=np.float32)))


def image(name: str, size: int = IMAGE_SIZE) -> Tensor:
    """(3, size, size) float64 in [-1, 1]: a sum of random plane waves."""
    stream = _stream(name)
    v, u = np.mgrid[0:size, 0:size] / (size - 1.0)
    channels = np.zeros((3, size, size))
    for channel in channels:
        for _ in range(WAVES):
            fx, fy = stream.uniform(-12, 12, 2)
            phase, amplitude = stream.uniform(0, 2 * np.pi), stream.uniform(0.2, 1.0)
            channel += amplitude / (1 + np.hypot(fx, fy)) * np.sin(2 * np.pi * (fx * u + fy * v) + phase)
    return torch.from_numpy(np.tanh(channels))
