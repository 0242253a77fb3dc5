"""`cbtalk doctor`: what is installed, which backends are on or why not, and whether every op computes what it ought."""

import importlib
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from cbtalk import __version__, _native, reference
from cbtalk.ops import codebook_attention, flow_warp, nearest_code, self_attention, vector_quantize

PACKAGES = ("numpy", "av", "pillow", "safetensors", "triton")
# The tests hold the kernels to twice the reference's error on every shape; here a wrong build must show, no more.
ALLOWED_ERROR = 4.0


class OpCase(NamedTuple):
    """One op on small inputs; its backends' reasons are those of the module `cbtalk.ops.<home>`."""

    name: str
    home: str
    op: Callable[..., Tensor]  # (*inputs, backend=...)
    reference: Callable[..., Tensor]  # (*inputs)
    inputs: tuple[Tensor, ...]


def run() -> int:
    """Print the report; 0 where every backend is on and every op agrees with its reference, otherwise 1."""
    _section("versions", _versions())
    _section("build", _build())
    started = time.monotonic()
    healthy, lines = True, []
    for case in op_cases():
        reason = why_off(case)
        verdict = f"off: {reason}" if reason else _examine(case)
        healthy = healthy and verdict.startswith("ok")
        lines.append((case.name, f"cpp {verdict}; reference on"))
    lines.append(("", f"tested forward and backward against float64 in {time.monotonic() - started:.1f} s"))
    _section("ops", lines)
    print("all well" if healthy else "not all is well: see the lines above")
    return 0 if healthy else 1


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
        built = "torch is built without CUDA" if torch.version.cuda is None else f"CUDA {torch.version.cuda} finds none"
        yield "GPU", f"off: {built}"


def _build() -> Iterable[tuple[str, str]]:
    if reason := _native.why_not_cpp():
        yield "cpp", f"off: {reason}"
        return
    yield "cpp", f"on, instruction level in use: {_native.cpu_level()}"
    facts = importlib.import_module("cbtalk._build_info")
    for name in ("compiler", "flags", "levels", "switches", "processor_level"):
        yield name.replace("_", " "), getattr(facts, name)


def op_cases() -> list[OpCase]:
    """Every op with float32 inputs of a size that takes milliseconds, in the layouts that the model uses."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    image = normal(2, 16, 32, 32).contiguous(memory_format=torch.channels_last)
    flow, occlusion = normal(2, 16, 16, 2), torch.rand(2, 1, 16, 16, generator=generator)
    rows, codes = normal(512, 32), normal(256, 32)
    tokens, more_tokens, values = normal(2, 64, 32), normal(2, 64, 32), normal(2, 64, 32)
    return [
        OpCase(
            "nearest_code", "nearest_code", _distances(nearest_code), _distances(reference.nearest_code), (rows, codes)
        ),
        OpCase(
            "vector_quantize", "nearest_code", _loss(vector_quantize), _loss(reference.vector_quantize), (rows, codes)
        ),
        OpCase("flow_warp", "flow_warp", flow_warp, reference.flow_warp, (image, flow, occlusion)),
        OpCase(
            "codebook_attention",
            "codebook_attention",
            _eight_heads(codebook_attention),
            _eight_heads(reference.codebook_attention),
            (tokens, codes, normal(256, 32)),
        ),
        OpCase(
            "self_attention",
            "codebook_attention",
            _eight_heads(self_attention),
            _eight_heads(reference.self_attention),
            (tokens, more_tokens, values),
        ),
    ]


def _distances(op: Callable[..., reference.NearestCode]) -> Callable[..., Tensor]:
    # The distance of a wrong code is larger than the least one, so that comparing distances also judges the codes.
    return lambda *inputs, **backend: op(*inputs, **backend).distances


def _loss(op: Callable[..., reference.Quantized]) -> Callable[..., Tensor]:
    return lambda *inputs, **backend: op(*inputs, **backend).loss


def _eight_heads(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    return lambda *inputs, **backend: op(*inputs, heads=8, **backend)


def why_off(case: OpCase) -> str | None:
    """Why the C++ kernel does not take this case, or None."""
    reason: str | None = importlib.import_module(f"cbtalk.ops.{case.home}").why_not_cpp(*case.inputs)
    return reason


def _examine(case: OpCase) -> str:
    exact = results(case.reference, [tensor.double() for tensor in case.inputs])
    plain = results(case.reference, case.inputs)
    try:
        actual = results(lambda *inputs: case.op(*inputs, backend="cpp"), case.inputs)
    except Exception as failure:  # a doctor reports, whatever the patient does
        return f"FAILED: {type(failure).__name__}: {failure}"
    names = ["output", *(f"gradient {number}" for number in range(1, len(exact)))]
    wrong = [name for name, *three in zip(names, actual, plain, exact, strict=True) if not agrees(*three)]
    return f"WRONG: {', '.join(wrong)}" if wrong else "ok"


def results(op: Callable[..., Tensor], inputs: Iterable[Tensor]) -> list[Tensor]:
    """The op's output, and the gradient to each input for one fixed gradient of the output."""
    leaves = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    output = op(*leaves)
    weight = torch.linspace(-1, 2, output.numel(), dtype=output.dtype).view(output.shape)
    return [output.detach(), *torch.autograd.grad(output, leaves, weight)]


def agrees(actual: Tensor, plain: Tensor, exact: Tensor) -> bool:
    """Whether the largest error is within a few times that of plain torch in the same dtype; NaN is not."""
    error = (actual.double() - exact).abs().max()
    rounding = torch.finfo(actual.dtype).eps * exact.abs().max()
    return bool(error <= ALLOWED_ERROR * ((plain.double() - exact).abs().max() + rounding))
