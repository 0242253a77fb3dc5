"""cbtalk: talking heads from one image, with motion and appearance codebooks.

The names below load on first use, so that importing the package (or `cbtalk --help`) does not wait for torch.
"""

import importlib as _importlib
import importlib.util as _util
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

from cbtalk.errors import (
    BackendError,
    CbtalkError,
    ConfigError,
    InputError,
    OutputError,
    SystemFailure,
    TrainingError,
    TransferError,
    WeightsError,
)

if _TYPE_CHECKING:
    from cbtalk.model.checkpoint import load
    from cbtalk.ops import (
        codebook_attention,
        conv3x3,
        flow_warp,
        group_norm,
        nearest_code,
        self_attention,
        vector_quantize,
    )
    from cbtalk.render import render_video

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CbtalkError",
    "ConfigError",
    "InputError",
    "OutputError",
    "SystemFailure",
    "TrainingError",
    "TransferError",
    "WeightsError",
    "__version__",
    "codebook_attention",
    "conv3x3",
    "flow_warp",
    "group_norm",
    "load",
    "nearest_code",
    "render_video",
    "self_attention",
    "vector_quantize",
]

# Of what is no op.
_HOMES = {"load": "cbtalk.model.checkpoint", "render_video": "cbtalk.render"}


# In a checkout that is not installed, the Triton kernels lie beside the package instead of in it.
_CHECKOUT = _Path(__file__).resolve().parents[1]
if _util.find_spec("cbtalk.kernels") is None and (_CHECKOUT / "kernels" / "__init__.py").exists():
    __path__.append(str(_CHECKOUT))


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module 'cbtalk' has no attribute {name!r}")
    value = getattr(_importlib.import_module(_HOMES.get(name, "cbtalk.ops")), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
