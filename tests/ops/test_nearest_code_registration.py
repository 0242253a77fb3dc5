"""nearest_code and vector_quantize under opcheck, compilers and export, and on tensors without data."""

from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk.ops import nearest_code, vector_quantize
from tests.helpers.cpp import needs_cpp
from tests.helpers.tiers import slow
from tests.ops.test_nearest_code import backends, lay_out, step


@needs_cpp
def test_backward_op_refuses_indices_outside_the_codebook() -> None:
    z, rows = torch.randn(4, 3), torch.randn(4, 3)
    for wrong in (5, -2):
        arguments = (None, torch.ones(4), z, rows, torch.tensor([0, 1, wrong, 0]), 5, 2.0, 2.0, True, True)
        with pytest.raises(RuntimeError, match="indices"):
            torch.ops.cbtalk.nearest_code_backward(*arguments)


@needs_cpp
@pytest.mark.parametrize("heads", [(), (2,)], ids=["one codebook", "two codebooks"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("layout", ["contiguous", *slow("transposed", "sliced")])
def test_opcheck(layout: str, masked: bool, heads: tuple[int, ...]) -> None:
    z, codebook = (lay_out(torch.randn(*heads, rows, 7), layout).requires_grad_() for rows in (30, 9))
    ignored = torch.rand(*heads, 30) < 0.3 if masked else None
    indices, _, rows = torch.ops.cbtalk.nearest_code(z, codebook, ignored, True)
    weight = torch.randn(*heads, 30, requires_grad=True)
    grad_codes = torch.randn(*heads, 30, 7, requires_grad=True)
    rows = rows.detach().requires_grad_()
    search = torch.ops.cbtalk.nearest_code.default
    # Its check of gradients under a compiler adds every output in place to the first, which here is an integer;
    # test_compiles_in_one_graph checks them instead.
    checks = ("test_schema", "test_autograd_registration", "test_faketensor")
    torch.library.opcheck(search, (z, codebook, ignored, True), test_utils=checks)
    calls: list[tuple[str, tuple[object, ...]]] = [
        ("nearest_code", (z.detach(), codebook.detach(), ignored, False)),
        ("vector_quantize", (z, codebook, ignored, 0.25, 1.0, True, True)),
        ("vector_quantize", (z.detach(), codebook.detach(), ignored, 0.25, 1.0, False, False)),
        ("nearest_code_backward", (grad_codes, weight, z, rows, indices, 9, 0.5, 2.0, True, True)),
        ("nearest_code_backward", (None, weight.detach()[..., 0].sum(), z, rows, indices, 9, 0.5, 2.0, False, True)),
    ]
    for name, arguments in calls:
        torch.library.opcheck(getattr(torch.ops.cbtalk, name).default, arguments)


@backends
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_in_one_graph(dynamic: bool, backend: str) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=dynamic, backend="aot_eager")
    for N in (20, 33):
        results = []
        for function in (step, compiled):
            torch.manual_seed(N)
            z, codebook = torch.randn(N, 8, requires_grad=True), torch.randn(12, 8, requires_grad=True)
            value = function(z, codebook, backend)
            results.append((value.detach(), *torch.autograd.grad(value, (z, codebook))))
        for eager, ours in zip(*results, strict=True):
            torch.testing.assert_close(eager, ours)


@needs_cpp
def test_export_keeps_the_op_with_any_number_of_rows() -> None:
    class Quantizer(torch.nn.Module):
        def forward(self, z: Tensor, codebook: Tensor) -> tuple[Tensor, ...]:
            return (*vector_quantize(z, codebook), *nearest_code(z, codebook))

    codebook = torch.randn(12, 8)
    rows = torch.export.Dim("rows", min=2)
    shapes = {"z": {0: rows}, "codebook": None}
    program = torch.export.export(Quantizer(), (torch.randn(20, 8), codebook), dynamic_shapes=shapes)
    targets = [str(node.target) for node in program.graph.nodes]
    assert "cbtalk.vector_quantize.default" in targets and "cbtalk.nearest_code.default" in targets
    z = torch.randn(33, 8)
    for exported, eager in zip(program.module()(z, codebook), Quantizer()(z, codebook), strict=True):
        assert torch.equal(exported, eager)


@needs_cpp
def test_training_an_exported_module_is_training_the_module() -> None:
    class Quantizer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.project = torch.nn.Linear(6, 4)
            self.codebook = torch.nn.Parameter(torch.randn(8, 4))

        def forward(self, x: Tensor) -> Tensor:
            codes, loss, _, _ = vector_quantize(self.project(x), self.codebook)
            return codes.square().sum() + loss

    module, x = Quantizer(), torch.randn(20, 6)
    exported = torch.export.export(module, (x,)).module()
    for trained in (module, exported):
        trained(x).backward()
    expected = dict(module.named_parameters())
    for name, parameter in exported.named_parameters():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, expected[name].grad)


@needs_cpp
def test_a_graph_without_gradients_says_so() -> None:
    class Search(torch.nn.Module):
        def forward(self, z: Tensor, codebook: Tensor) -> Tensor:
            return nearest_code(z, codebook).distances

    exported = torch.export.export(Search(), (torch.randn(20, 4), torch.randn(8, 4))).module()
    distances = exported(torch.randn(20, 4, requires_grad=True), torch.randn(8, 4))
    with pytest.raises(RuntimeError, match="traced without gradients"):
        distances.sum().backward()


@pytest.mark.parametrize("heads", [(), (2,)], ids=["one codebook", "two codebooks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tensors_without_data(dtype: torch.dtype, heads: tuple[int, ...]) -> None:
    def outputs(device: str) -> tuple[Any, ...]:
        z, codebook = (torch.ones(*heads, rows, 4, dtype=dtype, device=device) for rows in (10, 6))
        z.requires_grad_()
        ignored = torch.zeros(10, dtype=torch.bool, device=device)
        found = vector_quantize(z, codebook.float(), ignored=ignored, sums=True)
        (found.codes.sum() + found.loss).backward()
        return *found, *nearest_code(z, codebook, ignored=ignored), z.grad

    for real, meta in zip(outputs("cpu"), outputs("meta"), strict=True):
        assert (real.shape, real.dtype, real.stride()) == (meta.shape, meta.dtype, meta.stride())
