"""group_norm: csrc/cuda/group_norm.cu and group_norm_backward.cu, cut as group_norm_params.h says."""

from torch import Tensor

from bench.gpu_ways import ALL
from bench.launches.launch import WARP, Launch, Loop, bytes_of, dtype_name
from cbtalk.ops.examples import GROUPS

_ROWS = 8  # vectors that a thread has at a time, of each image


def launches(direction: str, inputs: tuple[Tensor, ...]) -> list[Launch]:
    """With the SiLU: slabs where they fit in a block's registers, otherwise chunks in two passes."""
    x = inputs[0]
    backward = direction == "bwd"
    lanes = _slab_lanes(x)
    found = _slabs(x, "group_norm", lanes, 1) if lanes else _chunks(x)
    if backward:
        found += _slabs(x, "group_norm_backward", lanes, 2) if lanes else _chunks_backward(x)
        found.append(_parameters(x))
    return found


def _vector(x: Tensor) -> int:
    return 16 // x.element_size()


def _slab_lanes(x: Tensor) -> int:
    """Vectors side by side in a slab; 0: no slab."""
    _, C, H, W = x.shape
    for lanes in (4, 2):
        slab = lanes * _vector(x)
        if H * W * lanes <= 512 * _ROWS and C % slab == 0 and slab % (C // GROUPS) == 0:
            return lanes
    return 0


def _slabs(x: Tensor, file: str, lanes: int, read: int) -> list[Launch]:
    """A thread's 8 vectors of each image read stay in its registers; nothing but small sums is a loop."""
    marks = {"LDG.E.128": _ROWS * read, "STG.E.128": _ROWS, "MUFU.EX2": ALL}
    return [
        Launch(
            f"{file}: slab_kernel<{dtype_name(x.dtype)}, {lanes}, 1>",
            (read + 1) * bytes_of(x),
            "element", x.numel(), x.numel() / (_ROWS * _vector(x) * WARP),
            (Loop(marks, 1),), straight=True,
        )
    ]  # fmt: skip


def _chunk_launch(x: Tensor, kernel: str, images: int, marks: dict[str, float]) -> Launch:
    """8 warps take a chunk of pixels by 128 bytes of channels, 8 vectors a lane in an iteration."""
    _, _, H, W = x.shape
    pixels = min(256 if H * W <= 4096 else 1024, H * W)
    iterations = pixels / 256
    return Launch(
        kernel, images * bytes_of(x), "element", x.numel(), x.numel() / (_ROWS * _vector(x) * WARP * iterations),
        (Loop(marks, iterations),),
    )  # fmt: skip


def _chunks(x: Tensor) -> list[Launch]:
    """Moments, their join, and the result, for which x is read again."""
    of_type = f"<{dtype_name(x.dtype)}, {_vector(x)}"
    return [
        _chunk_launch(x, f"group_norm: moments_kernel{of_type}>", 1, {"LDG.E.128": _ROWS, "FADD": ALL}),
        _join(x, "group_norm", 128, {"LDG": 2}),
        _chunk_launch(x, f"group_norm: apply_kernel{of_type}, 1>", 2, {"LDG.E.128": _ROWS, "STG.E.128": _ROWS}),
    ]


def _chunks_backward(x: Tensor) -> list[Launch]:
    """Sums, their join, and the gradient, for which both images are read again."""
    of_type = f"<{dtype_name(x.dtype)}, {_vector(x)}, 1>"
    both: dict[str, float] = {"LDG.E.128": 2 * _ROWS}
    return [
        _chunk_launch(x, f"group_norm_backward: sums_kernel{of_type}", 2, {**both, "MUFU.EX2": ALL}),
        _join(x, "group_norm_backward", 256, {"SHFL": 20}),
        _chunk_launch(x, f"group_norm_backward: input_kernel{of_type}", 3, {**both, "STG.E.128": _ROWS}),
    ]


def _join(x: Tensor, file: str, threads: int, marks: dict[str, float]) -> Launch:
    """A block joins what the chunks found of a group: a lane a chunk of a channel, or a warp a channel."""
    B, C, H, W = x.shape
    chunks = -(-H * W // (256 if H * W <= 4096 else 1024))
    of_group = chunks * C / GROUPS
    iterations = of_group / threads if file == "group_norm" else C / GROUPS / 8
    return Launch(
        f"{file}: join_kernel", 8.0 * B * chunks * C, "chunk of a channel", B * chunks * C, B * GROUPS * threads / WARP,
        (Loop(marks, iterations),),
    )  # fmt: skip


def _parameters(x: Tensor) -> Launch:
    """A lane sums a channel over the images, 8 an iteration."""
    B, C, _, _ = x.shape
    return Launch(
        "group_norm_backward: parameters_kernel", 8.0 * B * C, "channel of an image", B * C, C / WARP,
        (Loop({"LDG": 16}, B / 8),),
    )  # fmt: skip
