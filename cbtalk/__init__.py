"""cbtalk: talking heads from one picture, with motion and appearance codebooks.

The names below load on first use, so that importing the package (or `cbtalk --help`) does not wait for torch.
"""

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from cbtalk.errors import (
    BackendError,
    CbtalkError,
    ConfigError,
    InputError,
    OutputError,
    SystemFailure,
    WeightsError,
)

if TYPE_CHECKING:
    from cbtalk.model.checkpoint import load
    from cbtalk.ops.codebook_attention import codebook_attention, self_attention
    from cbtalk.ops.flow_warp import flow_warp
    from cbtalk.ops.nearest_code import nearest_code, vector_quantize

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CbtalkError",
    "ConfigError",
    "InputError",
    "OutputError",
    "SystemFailure",
    "WeightsError",
    "__version__",
    "codebook_attention",
    "flow_warp",
    "load",
    "nearest_code",
    "self_attention",
    "vector_quantize",
]

_HOMES = {
    "codebook_attention": "cbtalk.ops",
    "flow_warp": "cbtalk.ops",
    "load": "cbtalk.model.checkpoint",
    "nearest_code": "cbtalk.ops",
    "self_attention": "cbtalk.ops",
    "vector_quantize": "cbtalk.ops",
}


# In a checkout that is not installed, the Triton kernels lie beside the package instead of in it.
_CHECKOUT = Path(__file__).resolve().parents[1]
if importlib.util.find_spec("cbtalk.kernels") is None and (_CHECKOUT / "kernels" / "__init__.py").exists():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'cbtalk' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
