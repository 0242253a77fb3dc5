"""The GPU cases: the paper's shapes at batch 16, the floor of each, and the best that torch has for the same result."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import work
from bench.ceilings import Ceilings
from bench.work import Work
from cbtalk import ops
from cbtalk.reference import codebook_attention as attention_reference
from cbtalk.reference import flow_warp as warp_reference
from cbtalk.reference import group_norm as norm_reference
from cbtalk.reference import nearest_code as code_reference

DEVICE = "cuda"
BATCH = 16
HEADS = 8
TOKENS = 1024
SILU_EPS = 1e-6

Function = Callable[..., Tensor]


@dataclass(frozen=True)
class GpuCase:
    """One op at one size and dtype. `op(*inputs, backend=...)`, the exact `reference` and the peers give one tensor."""

    op: str
    shape: str
    dtype: torch.dtype
    make_inputs: Callable[[], tuple[Tensor, ...]]
    run: Function
    reference: Function
    forward: Work
    backward: Work  # alone
    peers: Mapping[str, Function] = field(default_factory=dict)

    def forward_floor(self, ceilings: Ceilings) -> float:
        """Seconds."""
        return ceilings.floor(self.forward).seconds

    def backward_floor(self, ceilings: Ceilings) -> float:
        """Seconds."""
        return ceilings.floor(self.backward).seconds

    @property
    def name(self) -> str:
        """For tables."""
        return f"{self.op} {self.shape} {str(self.dtype).removeprefix('torch.')}"


def cases() -> list[GpuCase]:
    """Every op in the dtypes of training and rendering."""
    found: list[GpuCase] = []
    for dtype in (torch.float32, torch.bfloat16):
        found += [_warp(C, size, dtype) for C, size in ((256, 32), (128, 64), (128, 128), (64, 256))]
        found += [_attention(d, codes, dtype) for d in (4, 32) for codes in (256, 1024)]
        found += [_norm(C, size, dtype) for C, size in ((64, 256), (128, 128), (256, 32))]
    found += [_nearest(D) for D in (32, 256)] + [_quantize(D) for D in (32, 256)]
    return found


def _random(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, device=DEVICE).to(dtype)


def _warp(C: int, size: int, dtype: torch.dtype) -> GpuCase:
    def make() -> tuple[Tensor, ...]:
        feature = _random(BATCH, C, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        line = torch.linspace(-1, 1, 64, device=DEVICE)
        grid = torch.stack([line.expand(64, 64), line[:, None].expand(64, 64)], -1)
        flow = grid + 0.1 * torch.randn(BATCH, 64, 64, 2, device=DEVICE)
        return feature, flow, torch.rand(BATCH, 1, 64, 64, device=DEVICE)

    def plain(feature: Tensor, flow: Tensor, occlusion: Tensor) -> Tensor:
        maps = (flow.permute(0, 3, 1, 2), occlusion)
        flow, occlusion = (F.interpolate(m, size=(size, size), mode="bilinear", align_corners=True) for m in maps)
        # grid_sample wants one dtype, and coordinates in bfloat16 are off by pixels.
        warped = F.grid_sample(feature.float(), flow.permute(0, 2, 3, 1), align_corners=True) * occlusion
        return warped.to(feature.dtype)

    elements = BATCH * C * size * size
    return GpuCase(
        "flow_warp", f"({BATCH}, {C}, {size}, {size})", dtype, make, ops.flow_warp, warp_reference.flow_warp,
        forward=work.pictures(2, elements, dtype),
        backward=work.pictures(3, elements, dtype),
        peers=_with_compiled(plain),
    )  # fmt: skip


def _attention(d: int, codes: int, dtype: torch.dtype) -> GpuCase:
    def make() -> tuple[Tensor, ...]:
        shapes = ((BATCH, TOKENS, HEADS * d), (codes, HEADS * d), (codes, HEADS * d))
        return tuple(_random(*shape, dtype=dtype) for shape in shapes)

    def sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        query = query.unflatten(-1, (HEADS, d)).transpose(1, 2)
        key, value = (x.unflatten(-1, (HEADS, d)).transpose(0, 1).expand(BATCH, -1, -1, -1) for x in (key, value))
        return F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)

    rows = 2 * (BATCH * TOKENS + codes) * HEADS * d  # queries and result, keys and values
    done = partial(work.attention, BATCH * HEADS * TOKENS, codes, d, dtype=dtype, device="cuda")

    return GpuCase(
        "codebook_attention", f"{BATCH} x {TOKENS} x {codes}, {HEADS} heads of {d}", dtype, make,
        partial(ops.codebook_attention, heads=HEADS), partial(attention_reference.codebook_attention, heads=HEADS),
        forward=done(rows=rows, products=2),
        backward=done(rows=2 * rows, products=5),
        peers=_with_compiled(sdpa, "SDPA"),
    )  # fmt: skip


def _norm(C: int, size: int, dtype: torch.dtype) -> GpuCase:
    groups = 32

    def make() -> tuple[Tensor, ...]:
        x = _random(BATCH, C, size, size, dtype=dtype).contiguous(memory_format=torch.channels_last)
        return x, _random(C), _random(C)

    def plain(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.silu(F.group_norm(x, groups, weight.to(x.dtype), bias.to(x.dtype), SILU_EPS))

    def with_silu(op: Function) -> Function:
        return partial(op, groups=groups, eps=SILU_EPS, silu=True)

    elements = BATCH * C * size * size
    return GpuCase(
        "group_norm", f"({BATCH}, {C}, {size}, {size})", dtype, make,
        with_silu(ops.group_norm), with_silu(norm_reference.group_norm),
        forward=work.pictures(2, elements, dtype),
        backward=work.pictures(3, elements, dtype),
        peers=_with_compiled(plain),
    )  # fmt: skip


def _codes(D: int) -> tuple[Tensor, ...]:
    return _random(BATCH * TOKENS, D), _random(1024, D)


def _code_work(D: int) -> tuple[Work, Work]:
    """The search; then both gradients written, rows and codes read."""
    rows = 2 * (BATCH * TOKENS + 1024) * D
    return work.nearest_code(BATCH * TOKENS, 1024, D, device="cuda"), work.pictures(1, rows, torch.float32)


def _nearest(D: int) -> GpuCase:
    def distances(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> Tensor:
        return ops.nearest_code(z, codebook, backend=backend).distances

    def exact(z: Tensor, codebook: Tensor) -> Tensor:
        return code_reference.nearest_code(z, codebook).distances

    def addmm(z: Tensor, codebook: Tensor) -> Tensor:
        scores = torch.addmm(codebook.square().sum(1), z, codebook.T, alpha=-2)
        return (z - codebook[scores.argmin(1)]).square().sum(1)

    return GpuCase(
        "nearest_code", f"{BATCH * TOKENS} x (1024, {D})", torch.float32, partial(_codes, D), distances, exact,
        *_code_work(D), _with_compiled(addmm, "addmm + argmin"),
    )  # fmt: skip


def _quantize(D: int) -> GpuCase:
    def loss(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> Tensor:
        return ops.vector_quantize(z, codebook, backend=backend).loss

    def exact(z: Tensor, codebook: Tensor) -> Tensor:
        return code_reference.vector_quantize(z, codebook).loss

    return GpuCase(
        "vector_quantize", f"{BATCH * TOKENS} x (1024, {D})", torch.float32, partial(_codes, D), loss, exact,
        *_code_work(D), _with_compiled(exact),
    )  # fmt: skip


def _with_compiled(function: Function, name: str = "eager") -> dict[str, Function]:
    return {name: function, "torch.compile": torch.compile(function, mode="max-autotune-no-cudagraphs", dynamic=False)}


def selected(op: str | None) -> Iterator[GpuCase]:
    """The cases of one op, or all."""
    return (case for case in cases() if op is None or case.op == op)
