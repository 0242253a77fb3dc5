"""The compiled libraries: each loaded once, and the reason kept when it is absent.

They lie beside the package; the environment variable CBTALK_LIBRARIES names another folder, of a debug build say.
"""

import ctypes
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

_FOLDER = Path(os.environ.get("CBTALK_LIBRARIES") or Path(__file__).parent / "_lib")
_TREE = Path(__file__).parents[1]
_REMEDY = (
    f"run `make build` in {_TREE}, the source tree that this cbtalk is imported from, "
    "or start Python in another folder if cbtalk is installed"
    if (_TREE / "csrc").is_dir()
    else "install cbtalk anew"
)


def _load(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    if not path.exists():
        return None, f"the compiled library {path.name} is not in {path.parent}: {_REMEDY}"
    try:
        torch.ops.load_library(path)
        return ctypes.CDLL(str(path)), None
    except OSError as error:
        return None, f"the compiled library {path.name} cannot be loaded: {error}"


def _load_cpu(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    library, reason = _load(path)
    if library is not None:
        library.cbtalk_cpu_level.restype = ctypes.c_char_p
        library.cbtalk_set_cpu_level.argtypes = [ctypes.c_char_p]
        library.cbtalk_set_cpu_level.restype = ctypes.c_bool
    return library, reason


def _load_cuda(path: Path) -> tuple[ctypes.CDLL | None, str | None]:
    if not path.exists():
        return None, f"no {path.name} in {path.parent}: CMake found no nvcc where it was built, or CBTALK_CUDA was OFF"
    if torch.version.cuda is None:
        return None, "this torch is built without CUDA"
    library, reason = _load(path)
    if library is not None:
        library.cbtalk_cuda_archs.restype = ctypes.c_char_p
    return library, reason


# Loaded at import, not at the first call: a call may be under torch.compile's tracing.
_library, _cpu_reason = _load_cpu(_FOLDER / "libcbtalk_cpu.so")
_cuda_library, _cuda_reason = _load_cuda(_FOLDER / "libcbtalk_cuda.so")


def why_not_cpp(*tensors: Tensor | None) -> str | None:
    """The reason why no C++ kernel of the CPU takes these tensors, or None; dtypes and layouts are each op's own."""
    if _cpu_reason is not None:
        return _cpu_reason
    for tensor in tensors:
        if tensor is not None and not tensor.is_cpu:
            return f"it takes CPU tensors only, not on {tensor.device}"
    return None


def warn_of_absence(reason: str) -> None:
    """Warns, once in a process, that the ops of the CPU are left to their references, if that reason is the library's.

    Other reasons are those of some arguments, and no fault of the installation.
    """
    if reason == _cpu_reason:
        _warn_once(reason)


@cache
def _warn_once(reason: str) -> None:
    text = f"the ops run on the CPU as their slower references in plain torch: {reason}"
    warnings.warn(text, RuntimeWarning, stacklevel=2)


def why_not_cuda(*tensors: Tensor) -> str | None:
    """The reason why no CUDA C++ kernel can take these tensors, or None; dtypes and layouts are each op's business."""
    if _cuda_reason is not None:
        return _cuda_reason
    for tensor in tensors:
        if tensor.device.type != "cuda":
            return f"it takes tensors on a GPU, not on {tensor.device}"
    return _why_not_gpu(tensors[0].device.index) if tensors else None


def _why_not_gpu(index: int | None) -> str | None:
    """The reason why the kernels of the library do not run on the GPU of that index, or None."""
    archs = "" if _cuda_library is None else _cuda_library.cbtalk_cuda_archs().decode()
    return why_not_capability(torch.cuda.get_device_capability(index), archs)


# A look at the device cannot be traced. This is all that torch.compiler.assume_constant_result does, but for an import
# of the compiler, which takes as long as that of torch.
_why_not_gpu._dynamo_marked_constant = True  # type: ignore[attr-defined]


@cache
def why_not_capability(capability: tuple[int, int], archs: str) -> str | None:
    """The reason why kernels for `archs`, written as CMake does ("80-real 90a-real 100"), do not run on a GPU, or None.

    Machine code ("-real" or without a suffix) serves its major version from its minor version on; PTX ("-virtual" or
    without a suffix) everything after it. With an "a", either serves that one capability alone.
    """
    for arch in archs.split():
        number, _, kind = arch.partition("-")
        own = divmod(int(number.rstrip("a")), 10)
        later = capability >= own and (kind != "real" or capability[0] == own[0])
        if capability == own or (later and not number.endswith("a")):
            return None
    major, minor = capability
    return f"its kernels are compiled for {archs}, not for this GPU of compute capability {major}.{minor}"


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
        raise RuntimeError(_cpu_reason)
    before = _library.cbtalk_cpu_level()
    if not _library.cbtalk_set_cpu_level(name.encode()):
        raise ValueError(f"no instruction level {name!r}; known: baseline, avx2, avx512")
    try:
        yield _library.cbtalk_cpu_level().decode()
    finally:
        _library.cbtalk_set_cpu_level(before)
