"""The calls of the Triton launchers that the cases of bench/ops come to, in order; see cbtalk/ops/_<op>.py."""

from collections.abc import Callable

import torch
from torch import Tensor

from bench.triton_code import Call, recorded
from cbtalk.kernels import codebook_attention, flow_warp, group_norm, nearest_code
from cbtalk.ops.examples import EPS, GROUPS, HEADS


def calls(op: str, direction: str, inputs: tuple[Tensor, ...]) -> list[Call]:
    """The launches of the op for inputs of these shapes, dtypes and layouts."""
    empty = [torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device="meta") for x in inputs]
    return recorded(lambda: _OPS[op](direction, *empty))


def _nearest_code(direction: str, z: Tensor, codebook: Tensor) -> None:
    nearest_code.nearest_code(z, codebook, None, keep_rows=False)


def _vector_quantize(direction: str, z: Tensor, codebook: Tensor) -> None:
    """Forward and backward; or a step of a moving average, which takes the sums of the rows of each code forward."""
    trained = direction == "bwd"
    codes, loss, indices, *_, rows = nearest_code.vector_quantize(
        z, codebook, None, 0.25, 1.0, keep_sums=not trained, keep_rows=trained
    )
    if trained:
        nearest_code.nearest_code_backward(codes, loss, z, rows, indices, len(codebook), 0.5, 2.0, True, True)


def _flow_warp(direction: str, feature: Tensor, flow: Tensor, occlusion: Tensor) -> None:
    flow, size = flow.unsqueeze(1), feature.shape[2:]
    output = flow_warp.flow_warp(feature, flow, occlusion, *size, True, 0)
    if direction == "bwd":
        flow_warp.flow_warp_backward(output, feature, flow, occlusion, True, 0, True, True, True, False)


def _attention(direction: str, query: Tensor, key: Tensor, value: Tensor) -> None:
    if key.dim() == 2:
        key, value = key.unsqueeze(0), value.unsqueeze(0)
    out, *statistics = codebook_attention.codebook_attention(query, key, value, None, HEADS, direction == "bwd")
    if direction == "bwd":
        codebook_attention.codebook_attention_backward(out, query, key, value, None, HEADS, out, *statistics)


def _group_norm(direction: str, x: Tensor, weight: Tensor, bias: Tensor) -> None:
    y, mean, rstd = group_norm.group_norm(x, weight, bias, GROUPS, EPS, True)
    if direction == "bwd":
        group_norm.group_norm_backward(y, x, weight, bias, mean, rstd, GROUPS, True)


_OPS: dict[str, Callable[..., None]] = {
    "nearest_code": _nearest_code,
    "vector_quantize": _vector_quantize,
    "flow_warp": _flow_warp,
    "codebook_attention": _attention,
    "self_attention": _attention,
    "group_norm": _group_norm,
}
