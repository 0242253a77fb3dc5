"""The Triton kernels that a launcher launches, recorded on tensors without storage and compiled without a GPU."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any
from unittest import mock

import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from bench.gpu_code import Code, read

TARGET = GPUTarget("cuda", 90, 32)


@dataclass(frozen=True)
class Call:
    """One launch: the kernel, its arguments by name, its programs, and what Triton compiles it for."""

    function: Any
    arguments: Mapping[str, Any]
    programs: int
    options: Any
    signature: Mapping[str, str]
    constants: Mapping[tuple[int, ...], Any]
    attributes: Mapping[tuple[int, ...], Any]

    @property
    def name(self) -> str:
        """The kernel, the dtype of its first tensor, and its tiles."""
        tiles = [str(value) for name, value in self.arguments.items() if name.startswith(("TILE", "BLOCK", "SLAB"))]
        return f"{self.function.__name__}<{', '.join([self.dtype, *tiles])}>"

    @property
    def dtype(self) -> str:
        """Of its first tensor."""
        return str(self.tensors[0].dtype).removeprefix("torch.")

    @property
    def tensors(self) -> list[Tensor]:
        """Those that it reads or writes."""
        return [value for value in self.arguments.values() if isinstance(value, Tensor)]

    @property
    def warps(self) -> int:
        """Of a program."""
        return int(self.options.num_warps)

    @property
    def key(self) -> str:
        """The same for calls of one build."""
        return repr((self.function.__name__, self.signature, self.constants, self.attributes, self.options))


def recorded(launch: Callable[[], object]) -> list[Call]:
    """The launches of `launch()`, whose tensors are on torch's device "meta"; none runs."""
    calls: list[Call] = []

    def record(self: Any, *args: Any, grid: tuple[int, ...], warmup: bool, **kwargs: Any) -> None:
        backend = make_backend(TARGET)
        bind = create_function_from_signature(self.signature, self.params, backend)
        bound, specialization, options = bind(*args, **kwargs)
        packed = self._pack_args(backend, kwargs, bound, specialization, options)
        calls.append(Call(self, bound, prod(grid), *packed))

    with mock.patch.object(JITFunction, "run", record):
        launch()
    return calls


def compiled(call: Call) -> Code:
    """Its machine code for TARGET, compiled once for all calls of a build."""
    if call.key not in _codes:
        source = ASTSource(call.function, call.signature, call.constants, call.attributes)
        cubin = triton.compile(source, target=TARGET, options=call.options.__dict__).asm["cubin"]
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "kernel.cubin"
            file.write_bytes(cubin)
            (code,) = read(file, f"sm_{TARGET.arch}")
        _codes[call.key] = code._replace(name=call.name)
    return _codes[call.key]


_codes: dict[str, Code] = {}
