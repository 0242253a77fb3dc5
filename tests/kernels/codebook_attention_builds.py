"""The builds of the attention kernels that the model's shapes ask for; see aot.py."""

import torch

from tests.kernels.aot import Build

_TYPES = {torch.float32: "*fp32", torch.float16: "*fp16", torch.bfloat16: "*bf16"}
_STATISTICS = ("maximum_ptr", "total_ptr", "key_parts_ptr", "value_parts_ptr")


def _signature(names: list[str], pointer: str, gradients: str) -> dict[str, str]:
    """Tensors of the data's type, float32 where the kernels keep sums, int32 for sizes and strides."""
    types = {}
    for name in names:
        if name in ("grad_key_ptr", "grad_value_ptr"):
            types[name] = gradients
        elif name in _STATISTICS:
            types[name] = "*fp32"
        else:
            types[name] = pointer if name.endswith("_ptr") else "i32"
    return types


def builds(capability: int) -> list[Build]:
    """Heads of 4, 8 and 32 columns, in float32 and a dtype of 16 bits; float32 masked; and the sum over chunks."""
    from cbtalk.kernels import codebook_attention as kernels

    found = []
    cases = [(dtype, size) for size in (4, 8) for dtype in (torch.float32, torch.float16)]
    cases += [(torch.float32, 32), (torch.bfloat16, 32)]
    for dtype, head_size in cases:
        narrow = kernels.is_narrow(head_size)
        family = "narrow" if narrow else "wide"
        product = r"fma\.rn\.f32" if narrow or dtype == torch.float32 else r"mma"
        forbidden = () if product == r"mma" else (r"mma",)
        query_tiling = kernels.row_tiling(dtype, head_size, backward=True)
        for what, tiling in (
            ("fwd", kernels.row_tiling(dtype, head_size, backward=False)),
            ("query_bwd", query_tiling),
            ("key_bwd", kernels.key_tiling(dtype, head_size)),
        ):
            name = f"{family}_{what}_kernel"
            constexprs = kernels.constants(head_size, backward=what != "fwd") | kernels.blocks(tiling)
            # The mask of self-attention, once for each family.
            masked = dtype == torch.float32
            arguments = getattr(kernels, name).arg_names
            signature = _signature(arguments, _TYPES[dtype], "*fp32")
            if masked:
                signature["ignored_ptr"] = "*u8"
            else:
                constexprs["ignored_ptr"] = None
            instructions = (r"ex2\.approx",) if narrow else (product, r"ex2\.approx")
            found.append(Build(name, signature, constexprs, kernels.options(tiling), instructions, forbidden))
    signature = _signature(kernels.add_chunks_bwd_kernel.arg_names, "*fp32", "*bf16")
    found.append(Build("add_chunks_bwd_kernel", signature, {"BLOCK": 256}, {"num_warps": 4}))
    return found
