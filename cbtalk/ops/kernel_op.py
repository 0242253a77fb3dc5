"""Registration of kernels as torch ops: schema, fake, Triton twin, derivative and vmap rule of an op in one place."""

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C import _any_requires_grad, _AutoDispatchBelowAutograd
from torch._C import _are_functorch_transforms_active as _in_functorch

Save = Callable[[Any, tuple[Any, ...], Any], None]
Backward = Callable[..., Any]


class KernelOp:
    """An op of `torch.ops.cbtalk` with its backends, called as `op(backend, *arguments)`.

    `cbtalk::<name>` has the compiled kernels: C++ on the CPU and CUDA C++ on a GPU, which the dispatcher tells apart by
    device. `cbtalk::<name>_triton` runs the function <name> of `cbtalk.kernels.<module>`.
    """

    def __init__(
        self,
        name: str,
        schema: str,
        fake: Callable[..., Any],
        *,
        module: str | None = None,
        save: Save | None = None,
        backward: Backward | None = None,
    ) -> None:
        """Registers the op.

        Args:
            name: base name of the op.
            schema: "(Tensor x, ...) -> Tensor", positional arguments only.
            fake: shapes, dtypes and layouts of the outputs, for meta and fake tensors.
            module: module of `cbtalk.kernels` with the Triton kernels; None if there are none.
            save: `setup_context` of `torch.library.register_autograd`; `ctx.backend` is set before it.
            backward: gradients of the inputs from those of the outputs; None for an op whose derivative is refused.
        """
        self.name = name
        self._save = save or _save_nothing
        self._backward = backward or _refusal(name)
        compiled = self._register(name, "cpp", schema, fake)
        self._variants = {"cpp": compiled, "cuda": compiled}
        if module is not None:
            self._variants["triton"] = self._register(f"{name}_triton", "triton", schema, fake)
            torch.library.impl(f"cbtalk::{name}_triton", ("cpu", "cuda"), _triton_kernel(module, name))

    def __call__(self, backend: str, *arguments: Any) -> Any:
        """Runs the op on a backend; where no gradient is needed, nothing of autograd runs."""
        op, function = self._variants[backend]
        if _in_functorch():
            return function.apply(*arguments)
        if torch.compiler.is_compiling() or torch.is_inference_mode_enabled():
            return op(*arguments)
        if torch.is_grad_enabled() and _any_requires_grad(*arguments):
            return op(*arguments)
        with _AutoDispatchBelowAutograd():
            return op(*arguments)

    def _register(
        self, name: str, backend: str, schema: str, fake: Callable[..., Any]
    ) -> tuple[Any, type[torch.autograd.Function]]:
        qualified = f"cbtalk::{name}"
        torch.library.define(qualified, schema)
        torch.library.register_fake(qualified, fake)
        op = getattr(torch.ops.cbtalk, name).default

        def forward(*arguments: Any) -> Any:
            return op(*arguments)

        def save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
            ctx.backend = backend
            self._save(ctx, inputs, output)

        def vmap(info: Any, in_dims: tuple[int | None, ...], *arguments: Any) -> Any:
            return _sample_by_sample(lambda *sample: self(backend, *sample), info.batch_size, in_dims, arguments)

        torch.library.register_autograd(qualified, self._backward, setup_context=save)
        torch.library.register_vmap(qualified, vmap)
        # torch.func takes a Function with a context of its own; the derivative registered above is not seen there.
        parts = {"forward": forward, "setup_context": save, "backward": self._backward, "vmap": vmap}
        members = {key: staticmethod(part) for key, part in parts.items()}
        return op, type(name, (torch.autograd.Function,), members)


def needs_gradient(*tensors: Tensor) -> bool:
    """Whether a backward pass may come; inside torch.func the tensors of an outer transform do not show it."""
    if torch.compiler.is_compiling():
        return torch.is_grad_enabled() and any(x.requires_grad for x in tensors)
    return _in_functorch() or (torch.is_grad_enabled() and _any_requires_grad(*tensors))


def cast_as_autocast(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in autocast's dtype where it is on for their device, as torch does for matrix products."""
    device = tensors[0].device.type
    if not torch.amp.is_autocast_available(device) or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return tuple(x if x.dtype == torch.float64 else x.to(dtype) for x in tensors)


def _triton_kernel(module: str, name: str) -> Callable[..., Any]:
    def run(*arguments: Any) -> Any:
        # Imported by the first call: Triton need not be installed.
        return getattr(importlib.import_module(f"cbtalk.kernels.{module}"), name)(*arguments)

    return run


def _save_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _refusal(name: str) -> Backward:
    op = name.removesuffix("_backward")
    order = "second derivative" if op != name else "derivative"

    def refuse(ctx: Any, *grads: Tensor | None) -> None:
        raise RuntimeError(f"the kernels of {op} have no {order}; where torch has one, backend='reference' gives it")

    return refuse


def _sample_by_sample(
    call: Callable[..., Any], batch: int, in_dims: tuple[int | None, ...], arguments: tuple[Any, ...]
) -> tuple[Any, Any]:
    """The vmap rule of every op: kernels take no further batch dimension, so each sample is a call."""

    def sample(i: int) -> list[Any]:
        return [x if dim is None else x.select(dim, i) for x, dim in zip(arguments, in_dims, strict=True)]

    results = [call(*sample(i)) for i in range(batch)]
    if isinstance(results[0], Tensor):
        return torch.stack(results), 0
    stacked = tuple(torch.stack(parts) for parts in zip(*results, strict=True))
    return stacked, (0,) * len(stacked)
