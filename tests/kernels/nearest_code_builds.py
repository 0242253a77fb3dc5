"""What the launchers of nearest_code would have compiled for the model's shapes."""

import torch

from cbtalk.kernels import nearest_code as kernels
from tests.kernels.aot import Build

_TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
_STRIDES = ("z_stride_n", "codebook_stride_k")


def builds(capability: int) -> list[Build]:
    """The builds for one compute capability."""
    half = [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)]
    found = [_winners(torch.float32, quantize=False), _winners(torch.float32), _winners(torch.float16)]
    for D in (32, 256):
        found += [_search(D, *dtypes, capability) for dtypes in [(torch.float32, torch.float32), *half[:: D // 32]]]
        found += _backward(D, torch.float32)
    return [*found, *_backward(256, torch.bfloat16)[1:], *_prologue()]


def _signature(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


def _search(D: int, z: torch.dtype, codebook: torch.dtype, capability: int) -> Build:
    config = dict(kernels.search_config(D, z, codebook))
    options = {name: int(str(config.pop(name))) for name in ("num_warps", "num_stages")}
    signature = {
        "z": _TYPES[z],
        "codebook": _TYPES[codebook],
        "half_norms": "*fp32",
        "indices": "*i64",
        **_signature("N K D z_stride_n codebook_stride_k", "i32"),
        "doubt": "fp32",
    }
    constexprs = {"z_stride_d": 1, "codebook_stride_d": 1, **config}
    single = z == codebook == torch.float32 or z != codebook
    kind = "tf32" if single else {torch.float16: "f16", torch.bfloat16: "bf16"}[z]
    mma = {80: rf"mma\.sync.*\.{kind}\.", 90: rf"wgmma.*\.{kind}\.", 100: r"tcgen05\.mma"}[capability]
    # Rounded by name to TF32, big part and rest: what tells three products from one.
    split = (r"cvt\.rna\.tf32",) if single else ()
    return Build("nearest_code_fwd_kernel", signature, constexprs, options, (mma, *split))


def _winners(dtype: torch.dtype, *, quantize: bool = True) -> Build:
    config = dict(kernels.WINNERS_CONFIG)
    options = {"num_warps": config.pop("num_warps")}
    signature = {
        **_signature("z codebook codes", _TYPES[dtype]),
        **_signature("distances partials", "*fp32"),
        **_signature("indices counts", "*i64"),
        **_signature("N K D z_stride_n codebook_stride_k", "i32"),
    }
    constexprs = {"z_stride_d": 1, "codebook_stride_d": 1, "QUANTIZE": quantize, **config}
    return Build("nearest_code_winners_kernel", signature, constexprs, options, (r"fma\.rn\.f64",))


def _backward(D: int, dtype: torch.dtype) -> list[Build]:
    config = kernels.backward_config(D)
    options = {"num_warps": config.pop("num_warps")}
    signature = {
        **_signature("z codebook grad_codes grad_z grad_codebook", _TYPES[dtype]),
        **_signature("weight partials", "*fp32"),
        **_signature("indices order code_begin code_end", "*i64"),
        **_signature("N D z_stride_n codebook_stride_k weight_stride", "i32"),
        "sorted_codes": "*i16",
        "scale": "fp32",
    }
    strides = {"z_stride_d": 1, "codebook_stride_d": 1}
    return [
        Build("nearest_code_bwd_rows_kernel", signature, {**strides, "CARRY": True, **config}, options),
        Build("nearest_code_bwd_chunks_kernel", signature, {**strides, "CHUNK": kernels.CHUNK, **config}, options),
        Build("nearest_code_bwd_codes_kernel", signature, {**strides, "CHUNK": kernels.CHUNK, **config}, options),
    ]


def _prologue() -> list[Build]:
    pointers = {"codebook": "*fp32", "half_norms": "*fp32", "counts": "*i64", "partials": "*fp32", "loss": "*fp32"}
    signature = {**pointers, **_signature("K D codebook_stride_k count numel", "i32"), "beta": "fp32"}
    norms = {"codebook_stride_d": 1, "QUANTIZE": True, "BLOCK_K": 16, "BLOCK_D": 64}
    return [
        Build("code_norms_kernel", signature, norms),
        Build("quantization_loss_kernel", signature, {"BLOCK": 1024}),
    ]
