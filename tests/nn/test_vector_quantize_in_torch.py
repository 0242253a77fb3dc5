"""Vector quantisation under checkpointing, autocast, torch.compile and torch.export."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from cbtalk.nn import VectorQuantize
from tests.nn.quantizers import kinds, module


@kinds
@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpointing_gives_the_same_gradients_and_updates_once(options: dict[str, Any], use_reentrant: bool) -> None:
    plain = module({**options, "revive_below": 2.0, "ema": options.get("ema", 0.3)})
    saving = copy.deepcopy(plain)
    layer = torch.nn.Linear(12, 12)
    for seed in range(3):
        features = torch.randn(30, 12)
        found: list[list[Tensor]] = []
        for quantize in (plain, saving):

            def step(x: Tensor, quantize: VectorQuantize = quantize) -> tuple[Tensor, Tensor]:
                result = quantize(layer(x))
                return result.quantized.sin(), result.loss

            torch.manual_seed(seed)
            layer.zero_grad()
            quantize.zero_grad()
            leaf = features.clone().requires_grad_()
            out, loss = step(leaf) if quantize is plain else checkpoint(step, leaf, use_reentrant=use_reentrant)
            (out.sum() + loss).backward()
            found.append(
                [p.grad.clone() for p in (leaf, *layer.parameters(), *quantize.parameters()) if p.grad is not None]
            )
        torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)
        torch.testing.assert_close(plain.state_dict(), saving.state_dict(), rtol=0, atol=0)


@kinds
def test_two_calls_before_one_backward_pass(options: dict[str, Any]) -> None:
    quantize = module({**options, "revive_below": 3.0})
    first, second = (torch.randn(20, 12).requires_grad_() for _ in range(2))
    (quantize(first).loss + quantize(second).loss).backward()
    assert first.grad is not None and first.grad.any() and second.grad is not None and second.grad.any()


def test_under_autocast_codes_are_compared_and_summed_in_float32() -> None:
    plain = module()
    mixed = copy.deepcopy(plain)
    features = torch.randn(40, 12)
    expected = plain(features.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = mixed(features.bfloat16())
        in_float32 = copy.deepcopy(mixed).eval()(features)
    torch.testing.assert_close(tuple(found), tuple(expected))
    assert found.quantized.dtype == torch.bfloat16 and found.loss.dtype == torch.float32
    assert in_float32.quantized.dtype == torch.float32
    torch.testing.assert_close(mixed.state_dict(), plain.state_dict())


@kinds
def test_training_compiles_as_one_graph(options: dict[str, Any]) -> None:
    torch.compiler.reset()
    eager = module({**options, "revive_below": 0.01})
    compiled = copy.deepcopy(eager)
    call = torch.compile(compiled, fullgraph=True, backend="aot_eager")
    for _ in range(3):
        features = torch.randn(2, 12, 3, 4)
        for quantize, function in ((eager, eager), (compiled, call)):
            quantize.zero_grad()
            found = function(features.requires_grad_())
            (found.quantized.square().sum() + found.loss).backward()
        torch.testing.assert_close(compiled.state_dict(), eager.state_dict())
        for a, b in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(a.grad, b.grad)


def test_k_means_in_the_first_compiled_call() -> None:
    torch.compiler.reset()
    quantize = VectorQuantize(12, 10, kmeans_steps=3)
    call = torch.compile(quantize, backend="aot_eager")
    for _ in range(3):
        call(torch.randn(50, 12))
    assert quantize.started and quantize.perplexity > 3


@kinds
def test_evaluation_exports(options: dict[str, Any]) -> None:
    quantize = module(options).eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    example = torch.randn(3, 12, 4, 4)
    program = torch.export.export(quantize, (example,), dynamic_shapes={"features": {0: batch}})
    features = torch.randn(5, 12, 4, 4)
    torch.testing.assert_close(tuple(program.module()(features)), tuple(quantize(features)))
