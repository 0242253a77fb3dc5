import pytest

from bench.gpu_code import loops, readable


def test_a_loop_is_what_lies_between_a_jump_and_its_target() -> None:
    code = [
        (0x00, "MOV R1, c[0x0][0x28]"),
        (0x10, "LDG.E.128 R4, desc[UR4][R2.64]"),
        (0x20, "@P0 BRA 0x60"),  # forwards
        (0x30, "STG.E.128 desc[UR4][R2.64], R4"),
        (0x40, "@!P1 BRA 0x10"),
        (0x50, "@P2 BRA 0x50"),  # holds nothing that a loop is told by
        (0x60, "EXIT"),
    ]
    assert [str(loop) for loop in loops(code)] == ["4 (1 loads, 1 stores)"]


@pytest.mark.parametrize(
    ("mangled", "expected"),
    [
        (
            "_ZN6cbtalk45_GLOBAL__N__68a3fa78_12_flow_warp_cu_5f2a978022warp_pixels_fwd_kernelI13__nv_bfloat16Li8EEEvNS_"
            "14FlowWarpParamsENS_8WarpTileE",
            "flow_warp: warp_pixels_fwd_kernel<bfloat16, 8>",
        ),
        (
            "_ZN6cbtalk54_GLOBAL__N__682b3cfc_21_flow_warp_backward_cu_c8e62c5422warp_pixels_bwd_kernelIfLi4ELb1ELb0EEE"
            "vNS_22FlowWarpCudaGradParamsENS_8WarpTileE",
            "flow_warp_backward: warp_pixels_bwd_kernel<float32, 4, 1, 0>",
        ),
        (  # the compiler's number of the file has digits alone
            "_ZN6cbtalk12nearest_code57_GLOBAL__N__00426158_24_nearest_code_backward_cu_16bedad328nearest_code_bwd_"
            "rows_kernelENS_29NearestCodeGradRowsCudaParamsE",
            "nearest_code_backward: nearest_code_bwd_rows_kernel",
        ),
        ("some_other_name", "some_other_name"),
    ],
)
def test_a_kernel_is_named_by_file_name_and_template(mangled: str, expected: str) -> None:
    assert readable(mangled) == expected
