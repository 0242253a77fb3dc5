"""Whether Triton's kernels can run on a tensor, and why not."""

import importlib.metadata
import os

from torch import Tensor

_OLDEST = (3, 6)

# Triton's interpreter runs kernels on CPU tensors, for tests; it has to be chosen before triton is imported.
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"


def _installed() -> str | None:
    try:
        version = importlib.metadata.version("triton")
    except importlib.metadata.PackageNotFoundError:
        return "triton is not installed: pip install 'cbtalk[gpu]'"
    if tuple(int(part) for part in version.split(".")[:2]) < _OLDEST:
        return f"triton {version} is too old: pip install --upgrade 'cbtalk[gpu]'"
    return None


# Found out at import, not at the first call: a call may be under torch.compile's tracing.
_reason = _installed()


def why_not_triton(*tensors: Tensor) -> str | None:
    """The reason why no Triton kernel can take these tensors, or None; dtypes and layouts are each op's business."""
    if _reason is not None:
        return _reason
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (_INTERPRETED and tensor.device.type == "cpu"):
            return f"it takes tensors on a GPU, not on {tensor.device}"
    return None
