"""codebook_attention and self_attention as ops of torch: opcheck, compile, export, dtypes and autocast."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from cbtalk import _native
from cbtalk.errors import BackendError
from cbtalk.ops import codebook_attention, self_attention
from tests.helpers.checks import with_gradients
from tests.helpers.cpp import needs_cpp
from tests.ops.test_codebook_attention import codebook_inputs


@needs_cpp
def test_opcheck() -> None:
    query = torch.randn(2, 9, 24)[..., 8:16].requires_grad_()
    key, value = torch.randn(2, 2, 7, 8).unbind()
    mask = torch.rand(2, 7) < 0.5
    for keys, values, key_mask in ((key, value, mask), (key[:1], value[:1], None)):
        arguments = (query.detach(), keys, values, key_mask, 2)
        for statistics in (True, False):
            torch.library.opcheck(torch.ops.cbtalk.codebook_attention, (*arguments, statistics))
        leaves = [x.detach().requires_grad_() for x in arguments[:3]]
        torch.library.opcheck(torch.ops.cbtalk.codebook_attention, (*leaves, *arguments[3:], True))
        out, maximum, total = torch.ops.cbtalk.codebook_attention(*arguments, True)
        gradient = (torch.randn_like(out), *arguments, out, maximum, total)
        torch.library.opcheck(torch.ops.cbtalk.codebook_attention_backward, gradient)


@needs_cpp
def test_statistics_are_made_for_a_backward_pass_alone() -> None:
    class Asked(TorchDispatchMode):
        statistics: bool | None = None

        def __torch_dispatch__(self, op: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            if op is torch.ops.cbtalk.codebook_attention.default:
                self.statistics = args[5]
            return op(*args, **(kwargs or {}))

    query, key, value = codebook_inputs(2, 30, 9, 8)
    results = []
    for needed, grad_mode, asked in ((False, True, False), (True, False, False), (True, True, True)):
        with torch.set_grad_enabled(grad_mode), Asked() as mode:
            results.append(codebook_attention(query, key.requires_grad_(needed), value, heads=2, backend="cpp"))
        assert mode.statistics is asked
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
    _, maximum, total = torch.ops.cbtalk.codebook_attention(query, key[None], value[None], None, 2, False)
    assert maximum.shape == total.shape == (0, 2, 30)


@needs_cpp
def test_compiles_whole_forward_and_backward_at_any_batch() -> None:
    def block(query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
        own = self_attention(query, query, query, heads=2, key_mask=mask)
        return codebook_attention(own, key, value, heads=2)

    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, tokens in ((2, 20), (3, 33)):
        mask = torch.rand(batch, tokens) < 0.5
        inputs = codebook_inputs(batch, tokens, 12, 8)
        expected = with_gradients(block, inputs, mask=mask)
        actual = with_gradients(compiled, inputs, mask=mask)
        for one, other in zip(actual, expected, strict=True):
            torch.testing.assert_close(one, other)


@needs_cpp
def test_exports_as_one_node_with_any_batch() -> None:
    class Layer(torch.nn.Module):
        def forward(self, query: Tensor, codes: Tensor) -> Tensor:
            return codebook_attention(query, codes, codes, heads=2)

    query, codes, _ = codebook_inputs(2, 10, 5, 8)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(Layer(), (query, codes), dynamic_shapes=({0: batch}, None))
    assert [str(node.target) for node in program.graph.nodes].count("cbtalk.codebook_attention.default") == 1
    query = torch.randn(4, 10, 8)
    torch.testing.assert_close(program.module()(query, codes), Layer()(query, codes))


def test_other_dtypes_go_to_the_reference_and_say_why_by_name() -> None:
    for dtype in (torch.float64, torch.float16):
        query, key, value = (x.to(dtype) for x in codebook_inputs(2, 5, 6, 8))
        assert codebook_attention(query, key, value, heads=2).dtype == dtype
        if _native.why_not_cpp() is None:
            with pytest.raises(BackendError, match="float32 or bfloat16 only"):
                codebook_attention(query, key, value, heads=2, backend="cpp")


def test_mixed_dtypes_are_refused_by_name_and_made_one_by_autocast() -> None:
    query, key, value = codebook_inputs(2, 5, 6, 8)
    for op, tensors in (
        (codebook_attention, (query.bfloat16(), key, value)),
        (self_attention, (query, query.half(), query.half())),
    ):
        with pytest.raises(ValueError, match=r"^query, key and value must have one dtype, not torch\..*$"):
            op(*tensors, heads=2)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            mixed = op(*tensors, heads=2)
        assert mixed.dtype == torch.bfloat16
        assert torch.equal(mixed, op(*(x.bfloat16() for x in tensors), heads=2))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert codebook_attention(query.double(), key.double(), value.double(), heads=2).dtype == torch.float64


def test_gradients_pass_through_the_casts_of_autocast() -> None:
    query, key, value = (x.requires_grad_() for x in codebook_inputs(2, 5, 6, 8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = codebook_attention(query.bfloat16(), key, value, heads=2)
    for gradient in torch.autograd.grad(out.float().sum(), (query, key, value)):
        assert gradient.dtype == torch.float32 and gradient.isfinite().all()


@needs_cpp
def test_a_graph_traced_without_gradients_refuses_to_train() -> None:
    query, key, value = codebook_inputs(2, 5, 6, 8)
    raw = torch.ops.cbtalk.codebook_attention.default
    leaf = query.clone().requires_grad_()
    out, _, _ = raw(leaf, key[None], value[None], None, 2, False)
    with pytest.raises(RuntimeError, match="traced without gradients"):
        out.sum().backward()
