"""The kernels that the launchers of nearest_code would have compiled for the model's shapes."""

import torch

from cbtalk.kernels import nearest_code as kernels
from cbtalk.kernels.nearest_code_sums import backward_config
from tests.kernels.aot import Build

TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
_SIZES = "N K D z_stride_h z_stride_n codebook_stride_h codebook_stride_k"


def builds(capability: int) -> list[Build]:
    """The builds for one compute capability."""
    half = [(torch.float16, torch.float16), (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)]
    found = [_winners(torch.float32, quantize=False), _winners(torch.float32), _winners(torch.float16)]
    for D in (32, 256):
        found += [_search(D, *dtypes, capability) for dtypes in [(torch.float32, torch.float32), *half[:: D // 32]]]
        found.append(_grad_rows(D))
    return [*found, *_prologue()]


def signature_of(names: str, kind: str) -> dict[str, str]:
    """Arguments of one type."""
    return dict.fromkeys(names.split(), kind)


def _search(D: int, z: torch.dtype, codebook: torch.dtype, capability: int) -> Build:
    config = dict(kernels.search_config(D, z, codebook))
    options = {name: int(str(config.pop(name))) for name in ("num_warps", "num_stages")}
    signature = {
        "z": TYPES[z],
        "codebook": TYPES[codebook],
        "half_norms": "*fp32",
        "indices": "*i64",
        **signature_of(_SIZES, "i32"),
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
        **signature_of("z codebook codes rows", TYPES[dtype]),
        **signature_of("distances partials", "*fp32"),
        **signature_of("indices counts", "*i64"),
        **signature_of(_SIZES, "i32"),
        "ignored": "*i1",
    }
    unused = ("distances",) if quantize else ("codes", "rows", "partials", "counts", "ignored")
    constexprs = {"z_stride_d": 1, "codebook_stride_d": 1, **dict.fromkeys(unused), **config}
    return Build("nearest_code_winners_kernel", signature, constexprs, options, (r"fma\.rn\.f64",))


def _grad_rows(D: int) -> Build:
    config = backward_config(D)
    options = {"num_warps": config.pop("num_warps")}
    signature = {
        **signature_of("z rows grad_codes grad_z weight", "*fp32"),
        **signature_of("N D z_stride_h z_stride_n rows_stride_h rows_stride_n weight_stride_h weight_stride_n", "i32"),
        "indices": "*i64",
        "scale": "fp32",
    }
    return Build("nearest_code_bwd_rows_kernel", signature, {"z_stride_d": 1, "rows_stride_d": 1, **config}, options)


def _prologue() -> list[Build]:
    signature = {
        **signature_of("codebook partials loss", "*fp32"),
        **signature_of("table counts", "*i64"),
        **signature_of("K D slots codebook_stride_h codebook_stride_k count", "i32"),
        **signature_of("beta gamma", "fp32"),
        "half_norms": "*i32",
    }
    return [
        Build("code_norms_kernel", signature, {"codebook_stride_d": 1, "BLOCK_K": 16, "BLOCK_D": 64}),
        Build("quantization_loss_kernel", signature, {"BLOCK": 1024}),
    ]
