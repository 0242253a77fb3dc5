"""`cbtalk doctor`: what is installed, which backends are on or why not, and whether every op computes what it ought."""

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cbtalk import __version__, _native, _triton
from cbtalk.errors import BackendError
from cbtalk.ops.examples import EXAMPLES, Example

PACKAGES = ("numpy", "av", "pillow", "safetensors", "triton")
CPU_BACKENDS = ("cpp",)
GPU_BACKENDS = ("cuda", "triton")
# The tests hold the kernels to twice the reference's error on every shape; here a wrong build must show, no more.
ALLOWED_ERROR = 4.0


def diagnose() -> int:
    """Print the report; 0 where the C++ kernels are on and no op on any backend is wrong, otherwise 1."""
    _section("versions", _versions())
    _section("backends", _backends())
    _section("build", _build())
    started = time.monotonic()
    healthy = _examine_all("cpu", CPU_BACKENDS, all_on=True)
    if torch.cuda.is_available():
        healthy = _examine_all("cuda", GPU_BACKENDS, all_on=False) and healthy
    print(f"  forward and backward tested against float64 in {time.monotonic() - started:.1f} s")
    print("all is well" if healthy else "not all is well: see the lines above")
    return 0 if healthy else 1


def _examine_all(device: str, backends: Sequence[str], *, all_on: bool) -> bool:
    """Print a line for each op; whether all are right, and on where `all_on` asks for it."""
    examples = [example for example in EXAMPLES if set(backends) & set(example.backends)]
    verdicts = [(one.name, {name: examine(one, one.inputs(device), name) for name in backends}) for one in examples]
    told = _reasons()
    lines = ((op, _line(found, told)) for op, found in verdicts)
    _section(f"ops on the {'CPU' if device == 'cpu' else 'GPU'}", lines)
    found = [verdict for _, by_name in verdicts for verdict in by_name.values()]
    return all(verdict == "ok" or (verdict.startswith("off") and not all_on) for verdict in found)


def _line(verdicts: Mapping[str, str], told: Mapping[str, str | None]) -> str:
    """The verdicts on an op, and who computes it where all its backends are off."""
    text = "; ".join(_verdict(name, verdict, told) for name, verdict in verdicts.items())
    return f"{text}; so torch computes it" if all(one.startswith("off") for one in verdicts.values()) else text


def _verdict(backend: str, verdict: str, told: Mapping[str, str | None]) -> str:
    """The verdict of an op on a backend; a reason that is told with the backends is not told for each op again."""
    reason = told[backend]
    known = reason is not None and verdict.startswith("off") and verdict.endswith(reason)
    return f"{backend} off" if known else f"{backend} {verdict}"


def _section(title: str, lines: Iterable[tuple[str, str]]) -> None:
    print(title)
    for name, text in lines:
        print(f"  {name:<20} {text}")


def _versions() -> Iterable[tuple[str, str]]:
    yield "cbtalk", f"{__version__} from {Path(__file__).parent}"
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "torch", torch.__version__
    for package in PACKAGES:
        try:
            yield package, importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield package, "not installed"
    yield "CPU", f"{os.cpu_count()} logical cores, torch uses {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        yield "GPU", torch.cuda.get_device_name()
    else:
        cuda = torch.version.cuda
        yield "GPU", f"off: {'torch is built without CUDA' if cuda is None else f'CUDA {cuda} finds none'}"


def _backends() -> Iterable[tuple[str, str]]:
    for name, reason in _reasons().items():
        yield name, f"off: {reason}" if reason else "on"


def _reasons() -> dict[str, str | None]:
    """The reason against each backend on this machine, whatever the op, or None."""
    no_gpu = None if torch.cuda.is_available() else "there is no GPU"
    return {
        "cpp": _native.why_not_cpp(),
        "cuda": _native.why_not_cuda() or no_gpu,
        "triton": _triton.why_not_triton() or no_gpu,
        "reference": None,
    }


def _build() -> Iterable[tuple[str, str]]:
    if _native.why_not_cpp():
        return
    yield "level in use", str(_native.cpu_level())
    try:
        facts = importlib.import_module("cbtalk._build_info")
    except ImportError as reason:  # built for another Python, or without Python's headers
        yield "build facts", f"off: {reason}"
        return
    for name in ("compiler", "flags", "levels", "cuda", "switches", "processor_level"):
        yield name.replace("_", " "), getattr(facts, name) or "not built"


def examine(example: Example, inputs: Sequence[Tensor], backend: str) -> str:
    """ "ok", or "off: " and why, or what is wrong, of one op on one backend, forward and backward."""
    try:
        actual = results(example, inputs, backend)
    except BackendError as reason:
        return f"off: {reason}"
    except Exception as failure:  # a doctor reports, whatever the patient does
        return f"FAILED: {type(failure).__name__}: {failure}"
    plain = results(example, inputs)
    exact = results(example, [tensor.double() for tensor in inputs])
    names = ["output", *(f"gradient {number}" for number in range(1, len(exact)))]
    wrong = [name for name, *three in zip(names, actual, plain, exact, strict=True) if not _agrees(*three)]
    return f"WRONG: {', '.join(wrong)}" if wrong else "ok"


def results(
    example: Example, inputs: Sequence[Tensor], backend: str | None = None, *, backward: bool = True
) -> list[Tensor]:
    """The output, and the gradient to each input for one uneven gradient of the output.

    Args:
        example: the op.
        inputs: those of `example.op`.
        backend: of the op; None for its reference.
        backward: False for the output alone, as where the op is not differentiable.
    """
    backward = backward and example.differentiable
    leaves = [tensor.detach().clone().requires_grad_(backward) for tensor in inputs]
    output = example.reference(*leaves) if backend is None else example.op(*leaves, backend=backend)
    if not backward:
        return [output]
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype, device=output.device).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, weight)]


def _agrees(actual: Tensor, plain: Tensor, exact: Tensor) -> bool:
    """Whether the largest error is within a few times that of plain torch in the same dtype; NaN is not."""
    error = (actual.double() - exact).abs().max()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max()
    return bool(error <= ALLOWED_ERROR * ((plain.double() - exact).abs().max() + rounding))
