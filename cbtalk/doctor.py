"""`cbtalk doctor`: what is installed, which backends are on or why not, and whether every op computes what it ought."""

import functools
import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cbtalk import __version__, _native, _triton, ops
from cbtalk.errors import BackendError

PACKAGES = ("numpy", "av", "pillow", "safetensors", "triton")
CPU_BACKENDS = ("cpp",)
GPU_BACKENDS = ("cuda", "triton")
# The tests hold the kernels to twice the reference's error on every shape; here a wrong build must show, no more.
ALLOWED_ERROR = 4.0


class OpCase(NamedTuple):
    """One op on small inputs. `op(*inputs, backend=...)` gives one tensor that depends on all of them."""

    name: str
    op: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    gradients: bool = True  # False: an op of inference alone


def run() -> int:
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
    verdicts = [(case.name, {name: examine(case, name) for name in backends}) for case in op_cases(device)]
    lines = ((op, "; ".join(f"{name} {verdict}" for name, verdict in found.items())) for op, found in verdicts)
    _section(f"ops on the {'CPU' if device == 'cpu' else 'GPU'}", lines)
    found = [verdict for _, by_name in verdicts for verdict in by_name.values()]
    return all(verdict == "ok" or (verdict.startswith("off") and not all_on) for verdict in found)


def _section(title: str, lines: Iterable[tuple[str, str]]) -> None:
    print(title)
    for name, text in lines:
        print(f"  {name:<20} {text}")


def _versions() -> Iterable[tuple[str, str]]:
    yield "cbtalk", __version__
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
    no_gpu = None if torch.cuda.is_available() else "there is no GPU"
    reasons = {
        "cpp": _native.why_not_cpp(),
        "cuda": _native.why_not_cuda() or no_gpu,
        "triton": _triton.why_not_triton() or no_gpu,
        "reference": None,
    }
    for name, reason in reasons.items():
        yield name, f"off: {reason}" if reason else "on"


def _build() -> Iterable[tuple[str, str]]:
    if _native.why_not_cpp():
        return
    yield "level in use", str(_native.cpu_level())
    facts = importlib.import_module("cbtalk._build_info")
    for name in ("compiler", "flags", "levels", "cuda", "switches", "processor_level"):
        yield name.replace("_", " "), getattr(facts, name) or "not built"


def op_cases(device: str = "cpu") -> list[OpCase]:
    """Every op of a device with float32 inputs of a size that takes milliseconds, in the layouts of the model."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(device)

    image = normal(2, 32, 32, 32).contiguous(memory_format=torch.channels_last)
    occlusion = torch.rand(2, 1, 16, 16, generator=generator).to(device)
    rows, codes, values = normal(512, 32), normal(256, 32), normal(256, 32)
    attention = functools.partial(ops.codebook_attention, heads=8)
    self_attention = functools.partial(ops.self_attention, heads=8)
    group_norm = functools.partial(ops.group_norm, groups=8, eps=1e-6, silu=True)
    cases = [
        OpCase("nearest_code", _distances, (rows, codes)),
        OpCase("vector_quantize", _loss, (rows, codes)),
        OpCase("flow_warp", ops.flow_warp, (image, normal(2, 16, 16, 2), occlusion)),
        OpCase("codebook_attention", attention, (normal(2, 64, 32), codes, values)),
        OpCase("self_attention", self_attention, (normal(2, 64, 32), normal(2, 64, 32), normal(2, 64, 32))),
        OpCase("group_norm", group_norm, (image, normal(32), normal(32))),
    ]
    convolution = OpCase("conv3x3", ops.conv3x3, (image, normal(48, 32, 3, 3), normal(48)), gradients=False)
    return [*cases, convolution] if device == "cpu" else cases  # a GPU has cuDNN's


def _distances(rows: Tensor, codes: Tensor, *, backend: str) -> Tensor:
    # The distance of a wrong code is larger than the least one, so that comparing distances also judges the codes.
    return ops.nearest_code(rows, codes, backend=backend).distances


def _loss(rows: Tensor, codes: Tensor, *, backend: str) -> Tensor:
    return ops.vector_quantize(rows, codes, backend=backend).loss


def examine(case: OpCase, backend: str) -> str:
    """ "ok", or "off: " and why, or what is wrong, of one op on one backend, forward and backward."""
    try:
        actual = _results(case, case.inputs, backend)
    except BackendError as reason:
        return f"off: {reason}"
    except Exception as failure:  # a doctor reports, whatever the patient does
        return f"FAILED: {type(failure).__name__}: {failure}"
    plain = _results(case, case.inputs, "reference")
    exact = _results(case, [tensor.double() for tensor in case.inputs], "reference")
    names = ["output", *(f"gradient {number}" for number in range(1, len(exact)))]
    wrong = [name for name, *three in zip(names, actual, plain, exact, strict=True) if not _agrees(*three)]
    return f"WRONG: {', '.join(wrong)}" if wrong else "ok"


def _results(case: OpCase, inputs: Sequence[Tensor], backend: str) -> list[Tensor]:
    """The op's output, and the gradient to each input for one fixed gradient of the output."""
    leaves = [tensor.detach().clone().requires_grad_(case.gradients) for tensor in inputs]
    output = case.op(*leaves, backend=backend)
    if not case.gradients:
        return [output]
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype, device=output.device).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, weight)]


def _agrees(actual: Tensor, plain: Tensor, exact: Tensor) -> bool:
    """Whether the largest error is within a few times that of plain torch in the same dtype; NaN is not."""
    error = (actual.double() - exact).abs().max()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max()
    return bool(error <= ALLOWED_ERROR * ((plain.double() - exact).abs().max() + rounding))
