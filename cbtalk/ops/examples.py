"""The list of the public ops, each with inputs of any size: doctor, tests and benchmarks are made from it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from types import ModuleType

import torch
import torch.nn.functional as F
from torch import Tensor

from cbtalk.ops import _codebook_attention, _conv3x3, _flow_warp, _group_norm, _nearest_code
from cbtalk.reference import codebook_attention as attention_reference
from cbtalk.reference import conv3x3 as conv_reference
from cbtalk.reference import flow_warp as warp_reference
from cbtalk.reference import group_norm as norm_reference
from cbtalk.reference import nearest_code as code_reference

HEADS = 8
GROUPS, EPS = 32, 1e-6

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class Example:
    """A public op with everything that is needed to call it and to judge what it gives.

    Attributes:
        name: of the function in `cbtalk.ops`, and of the ops that it registers under `torch.ops.cbtalk`.
        module: that of the function; its WHY_NOT names the backends, its name the files of the op in every folder.
        op: `op(*inputs, backend=...)`, one tensor that depends on every input.
        reference: the same of `cbtalk.reference`, without `backend`.
        make: `make(generator, dtype, **sizes)`, inputs in the layouts of the model, on the generator's device; the
            default sizes take milliseconds.
        small: sizes of `make` that take microseconds; `batch`, which every op has, is left free.
        differentiable: whether the kernels take inputs that require gradients; then each floating-point one has one.
    """

    name: str
    module: ModuleType
    op: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    make: Callable[..., Inputs]
    small: Mapping[str, int]
    differentiable: bool = True

    @property
    def base(self) -> str:
        """The base name of its files: kernels/<base>.py, csrc/cpu/<base>.cpp, tests/ops/test_<base>.py, ..."""
        return self.module.__name__.rpartition("._")[2]

    @property
    def backends(self) -> tuple[str, ...]:
        """Without "reference", which every op has."""
        return tuple(self.module.WHY_NOT)

    def inputs(self, device: str = "cpu", **sizes: int) -> Inputs:
        """Inputs in float32, the same in every call."""
        return self.make(torch.Generator(device).manual_seed(0), torch.float32, **sizes)


def named(name: str) -> Example:
    """The example of an op."""
    return next(example for example in EXAMPLES if example.name == name)


def _normal(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device)


def _images(generator: torch.Generator, *shape: int) -> Tensor:
    return _normal(generator, *shape).contiguous(memory_format=torch.channels_last)


def _rows_and_codes(
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    tokens: int = 256,
    codes: int = 256,
    dim: int = 32,
) -> Inputs:
    """(batch * tokens, dim) and (codes, dim)."""
    return _normal(generator, batch * tokens, dim).to(dtype), _normal(generator, codes, dim).to(dtype)


def _feature_and_flow(
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    channels: int = 32,
    height: int = 32,
    width: int = 32,
    flow_size: int = 16,
) -> Inputs:
    """A smooth flow of some tens of pixels about the identity, as a moving head gives, and an occlusion map.

    Both in float32 for every dtype: in 8 bits of mantissa coordinates are pixels off.
    """
    feature = _images(generator, batch, channels, height, width).to(dtype)
    line = torch.linspace(-1, 1, flow_size, device=generator.device)
    grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)  # (h, w, 2)
    bumps = 0.1 * _normal(generator, batch, 2, 8, 8)
    motion = F.interpolate(bumps, size=(flow_size, flow_size), mode="bicubic").permute(0, 2, 3, 1)
    shape = (batch, 1, flow_size, flow_size)
    occlusion = torch.rand(shape, generator=generator, device=generator.device)
    return feature, (grid + motion).contiguous(), occlusion


def _queries_and_codes(
    generator: torch.Generator, dtype: torch.dtype, *, batch: int = 2, tokens: int = 64, codes: int = 256, head: int = 4
) -> Inputs:
    """(batch, tokens, HEADS * head), and keys and values (codes, HEADS * head)."""
    shapes = ((batch, tokens, HEADS * head), (codes, HEADS * head), (codes, HEADS * head))
    return tuple(_normal(generator, *shape).to(dtype) for shape in shapes)


def _queries_and_keys(
    generator: torch.Generator, dtype: torch.dtype, *, batch: int = 2, tokens: int = 64, head: int = 4
) -> Inputs:
    """Query, key and value (batch, tokens, HEADS * head): slices of one projection."""
    return _normal(generator, batch, tokens, 3 * HEADS * head).to(dtype).chunk(3, -1)


def _image_and_affine(
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    channels: int = 64,
    height: int = 32,
    width: int = 32,
) -> Inputs:
    """The weight and the bias in float32, as parameters are, for every dtype of the image."""
    image = _images(generator, batch, channels, height, width).to(dtype)
    return image, _normal(generator, channels), _normal(generator, channels)


def _image_and_filters(
    generator: torch.Generator,
    dtype: torch.dtype,
    *,
    batch: int = 2,
    channels: int = 32,
    outputs: int = 48,
    height: int = 32,
    width: int = 32,
) -> Inputs:
    weight = _images(generator, outputs, channels, 3, 3) / (3 * channels**0.5)
    bias = _normal(generator, outputs)
    return _images(generator, batch, channels, height, width).to(dtype), weight.to(dtype), bias.to(dtype)


def _distances(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> Tensor:
    # The distance of a wrong code is larger than the least one, so that comparing distances also judges the codes.
    return _nearest_code.nearest_code(z, codebook, backend=backend).distances


def _reference_distances(z: Tensor, codebook: Tensor) -> Tensor:
    return code_reference.nearest_code(z, codebook).distances


def _codes_and_loss(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> Tensor:
    found = _nearest_code.vector_quantize(z, codebook, backend=backend)
    return found.codes + found.loss


def _reference_codes_and_loss(z: Tensor, codebook: Tensor) -> Tensor:
    found = code_reference.vector_quantize(z, codebook)
    return found.codes + found.loss


EXAMPLES = (
    Example(
        "nearest_code",
        _nearest_code,
        _distances,
        _reference_distances,
        _rows_and_codes,
        small={"tokens": 7, "codes": 24, "dim": 16},
    ),
    Example(
        "vector_quantize",
        _nearest_code,
        _codes_and_loss,
        _reference_codes_and_loss,
        _rows_and_codes,
        small={"tokens": 7, "codes": 24, "dim": 16},
    ),
    Example(
        "flow_warp",
        _flow_warp,
        _flow_warp.flow_warp,
        warp_reference.flow_warp,
        _feature_and_flow,
        small={"channels": 8, "height": 5, "width": 6, "flow_size": 4},
    ),
    Example(
        "codebook_attention",
        _codebook_attention,
        partial(_codebook_attention.codebook_attention, heads=HEADS),
        partial(attention_reference.codebook_attention, heads=HEADS),
        _queries_and_codes,
        small={"tokens": 9, "codes": 12},
    ),
    Example(
        "self_attention",
        _codebook_attention,
        partial(_codebook_attention.self_attention, heads=HEADS),
        partial(attention_reference.self_attention, heads=HEADS),
        _queries_and_keys,
        small={"tokens": 9},
    ),
    Example(
        "group_norm",
        _group_norm,
        partial(_group_norm.group_norm, groups=GROUPS, eps=EPS, silu=True),
        partial(norm_reference.group_norm, groups=GROUPS, eps=EPS, silu=True),
        _image_and_affine,
        small={"height": 5, "width": 6},
    ),
    Example(
        "conv3x3",
        _conv3x3,
        _conv3x3.conv3x3,
        conv_reference.conv3x3,
        _image_and_filters,
        small={"channels": 16, "outputs": 16, "height": 8, "width": 8},
        differentiable=False,
    ),
)
ON_GPU = tuple(example for example in EXAMPLES if {"cuda", "triton"} & set(example.backends))
IN_CUDA = tuple(example for example in EXAMPLES if "cuda" in example.backends)
