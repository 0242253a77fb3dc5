"""The compiled library: loaded once, and the reason kept when it is absent."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_LIBRARY = Path(__file__).parent / "_lib" / "libcbtalk_cpu.so"


def _load(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    if not path.exists():
        return None, f"the compiled library {path.name} is not beside the package: run `make build` or `pip install .`"
    try:
        torch.ops.load_library(path)
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"the compiled library {path.name} cannot be loaded: {error}"
    library.cbtalk_cpu_level.restype = ctypes.c_char_p
    library.cbtalk_set_cpu_level.argtypes = [ctypes.c_char_p]
    library.cbtalk_set_cpu_level.restype = ctypes.c_bool
    return library, None


# Loaded at import, not at the first call: a call may be under torch.compile's tracing.
_library, _reason = _load(_LIBRARY)


def why_not_cpp() -> str | None:
    """Why the C++ kernels cannot be used at all, or None."""
    return _reason


def cpu_level() -> str | None:
    """The instruction level of the C++ kernels in use: "baseline", "avx2" or "avx512"; None without the library."""
    return None if _library is None else _library.cbtalk_cpu_level().decode()


@contextmanager
def use_cpu_level(name: str) -> Iterator[str]:
    """Runs the C++ kernels at a lower instruction level; gives the level in use, capped by what the processor has.

    The environment variable CBTALK_CPU_ISA does the same for a whole process. The level is one for all threads.

    Raises:
        ValueError: no such level.
        RuntimeError: the compiled library is absent; the message is the reason.
    """
    if _library is None:
        raise RuntimeError(_reason)
    before = _library.cbtalk_cpu_level()
    if not _library.cbtalk_set_cpu_level(name.encode()):
        raise ValueError(f"no instruction level {name!r}; known: baseline, avx2, avx512")
    try:
        yield _library.cbtalk_cpu_level().decode()
    finally:
        _library.cbtalk_set_cpu_level(before)
