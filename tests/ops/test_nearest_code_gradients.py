"""First derivatives of nearest_code and vector_quantize, and the codes that they are of."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from cbtalk.ops import _nearest_code_kernels as kernels
from cbtalk.ops import nearest_code, vector_quantize
from tests.helpers.checks import assert_error_budget
from tests.helpers.cpp import needs_cpp
from tests.ops.test_nearest_code import backends, leaves_of, trained


@backends
@pytest.mark.parametrize("size", [(1, 1, 1), (97, 33, 15), (500, 64, 32)], ids=str)
def test_quantized_values_and_gradients(size: tuple[int, int, int], backend: str) -> None:
    z, codebook = trained(*size)
    weight = torch.randn_like(z)
    results = {}
    for name, dtype in (("ours", torch.float32), ("float32", torch.float32), ("float64", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        found = vector_quantize(*leaves, 0.3, backend=backend if name == "ours" else "reference")
        (0.01 * (found.codes * weight).sum() + 3 * found.loss).backward()
        results[name] = (found.codes.detach(), found.loss.detach(), *(leaf.grad for leaf in leaves))
        assert torch.equal(found.counts, torch.bincount(found.indices, minlength=size[1]))
    for ours, plain, exact in zip(results["ours"], results["float32"], results["float64"], strict=True):
        assert ours is not None and plain is not None and exact is not None
        assert_error_budget(ours, plain, exact)


@backends
def test_gradient_stops_where_it_should(backend: str) -> None:
    z, codebook = trained(20, 6, 4)
    z.requires_grad_()
    codebook.requires_grad_()
    found = vector_quantize(z, codebook, 0.25, backend=backend)
    chosen = codebook.detach()[found.indices]
    weight = torch.randn(20, 4)
    straight = torch.autograd.grad((found.codes * weight).sum(), z, retain_graph=True)[0]
    assert torch.equal(straight, weight)
    grad_z, grad_codebook = torch.autograd.grad(found.loss, (z, codebook))
    torch.testing.assert_close(grad_z, 0.25 * 2 / 80 * (z.detach() - chosen))
    pulls = torch.zeros(6, 4).index_add(0, found.indices, 2 / 80 * (chosen - z.detach()))
    torch.testing.assert_close(grad_codebook, pulls)
    assert grad_codebook[found.counts == 0].eq(0).all()


@backends
def test_one_argument_may_be_frozen(backend: str) -> None:
    z, codebook = trained(20, 6, 4)
    vector_quantize(z, codebook.requires_grad_(), backend=backend).loss.backward()
    assert codebook.grad is not None
    codebook = codebook.detach()
    vector_quantize(z.requires_grad_(), codebook, backend=backend).codes.sum().backward()
    assert z.grad is not None and torch.equal(z.grad, torch.ones(20, 4))
    with torch.no_grad():
        assert not vector_quantize(z, codebook, backend=backend).codes.requires_grad


@needs_cpp
def test_distances_carry_the_gradients_of_the_reference() -> None:
    z, codebook = trained(200, 40, 9)
    weight = torch.randn(200)
    results = []
    for name, dtype in (("cpp", torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        distances = nearest_code(*leaves, backend=name).distances
        results.append(torch.autograd.grad(distances @ weight.to(dtype), leaves))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


UPDATES: dict[str, Callable[[Tensor, Tensor], object]] = {
    "data": lambda codebook, new: codebook.data.copy_(new),
    "no_grad": lambda codebook, new: codebook.copy_(new),
    "lerp": lambda codebook, new: codebook.lerp_(new, 0.5),
}


def gradient_around(update: Callable[[Tensor, Tensor], object] | None, backend: str) -> Tensor:
    """The gradient of z where the codebook, a buffer, is updated between forward and backward."""
    z, codebook = trained(64, 16, 4)
    z.requires_grad_()
    weight, new = torch.randn(64, 4), torch.randn(16, 4)
    found = vector_quantize(z, codebook, backend=backend)
    distances = nearest_code(z, codebook, backend=backend).distances
    if update is not None:
        with torch.no_grad():
            update(codebook, new)
    value = (found.codes * weight).sum() + 5 * found.loss + distances.sum()
    return torch.autograd.grad(value, z)[0]


@backends
@pytest.mark.parametrize("update", UPDATES.values(), ids=UPDATES)
def test_backward_uses_the_codes_of_the_forward_pass(update: Callable[[Tensor, Tensor], object], backend: str) -> None:
    torch.manual_seed(1)
    still = gradient_around(None, backend)
    torch.manual_seed(1)
    assert torch.equal(gradient_around(update, backend), still)


@needs_cpp
def test_a_codebook_saved_by_reference_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault: the backward pass reads the codebook as it is by then."""
    save = kernels.QUANTIZE._save

    def save_codebook(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        save(ctx, inputs, output)
        ctx.codebook = inputs[1]

    def saved(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
        z, indices, rows = ctx.saved_tensors
        return z, indices, ctx.codebook[indices] if hasattr(ctx, "codebook") else rows

    monkeypatch.setattr(kernels.QUANTIZE, "_save", save_codebook)
    monkeypatch.setattr(kernels, "_saved", saved)
    with pytest.raises(AssertionError):
        test_backward_uses_the_codes_of_the_forward_pass(UPDATES["data"], "cpp")


@backends
def test_codebook_gradient_is_of_the_codes_of_the_forward_pass(backend: str) -> None:
    z, codebook = trained(64, 16, 4)
    gradients = []
    for update in (False, True):
        leaf = codebook.clone().requires_grad_()
        loss = vector_quantize(z, leaf, backend=backend).loss
        if update:
            leaf.data.add_(1.0)
        gradients.append(torch.autograd.grad(loss, leaf)[0])
    assert torch.equal(*gradients)


@backends
def test_moving_average_inside_a_compiled_step(backend: str) -> None:
    def step(z: Tensor, codebook: Tensor) -> Tensor:
        found = vector_quantize(z, codebook, gamma=0.0, sums=True, backend=backend)
        with torch.no_grad():
            means = found.sums / found.counts.clamp(min=1)[:, None]
            codebook.lerp_(means, 0.5)
        return found.loss + found.codes.sin().sum()

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    z, codebook = trained(64, 16, 4)
    results = []
    for function in (step, compiled):
        rows, codes = z.clone().requires_grad_(), codebook.clone()
        results.append((*torch.autograd.grad(function(rows, codes), rows), codes))
    for eager, ours in zip(*results, strict=True):
        torch.testing.assert_close(ours, eager)


@backends
@pytest.mark.parametrize(("beta", "gamma"), [(0.25, 0.0), (0.0, 2.0), (0.3, 0.7)])
def test_terms_of_the_loss_alone(beta: float, gamma: float, backend: str) -> None:
    results = []
    for name, dtype in ((backend, torch.float32), ("plain", torch.float32), ("plain", torch.float64)):
        torch.manual_seed(2)
        z, codebook = leaves_of(*trained(90, 20, 6), dtype)
        if name == "plain":
            chosen = codebook[torch.cdist(z, codebook).argmin(1)]
            commitment, pull = (chosen.detach() - z).square().mean(), (chosen - z.detach()).square().mean()
            loss = beta * commitment + gamma * pull
        else:
            loss = vector_quantize(z, codebook, beta, gamma=gamma, backend=name).loss
        gradients = torch.autograd.grad(loss, (z, codebook), allow_unused=True, materialize_grads=True)
        results.append((loss.detach(), *gradients))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)
