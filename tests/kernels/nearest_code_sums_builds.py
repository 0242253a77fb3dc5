"""The kernels that `sum_by_code` would have compiled for the model's shapes."""

import torch

from cbtalk.kernels import nearest_code_sums as kernels
from tests.kernels.aot import Build
from tests.kernels.nearest_code_builds import TYPES, signature_of


def builds(capability: int) -> list[Build]:
    """The builds for one compute capability."""
    found = [Build("code_keys_kernel", {"indices": "*i64", "keys": "*i16", "N": "i32", "K": "i32"}, {"BLOCK": 1024})]
    for D in (32, 256):
        found += [*_sums(D, torch.float32), *_sums(D, torch.float32, rows=False)]
    return [*found, *_sums(256, torch.bfloat16)]


def _sums(D: int, dtype: torch.dtype, *, rows: bool = True) -> list[Build]:
    config = {**kernels.backward_config(D), "CHUNK": kernels.CHUNK}
    options = {"num_warps": config.pop("num_warps")}
    signature = {
        **signature_of("z rows", TYPES[dtype]),
        **signature_of("weight partials", "*fp32"),
        **signature_of("order code_begin code_end", "*i64"),
        **signature_of("count N K D z_stride_h z_stride_n rows_stride_h rows_stride_n", "i32"),
        **signature_of("weight_stride_h weight_stride_n", "i32"),
        "keys": "*i16",
        "sums": TYPES[dtype] if rows else "*fp32",
        "scale": "fp32",
    }
    absent = {} if rows else dict.fromkeys(("rows", "weight"))
    constexprs = {"z_stride_d": 1, "rows_stride_d": 1, **absent, **config}
    return [Build(kernel, signature, constexprs, options) for kernel in ("sum_chunks_kernel", "sum_codes_kernel")]
