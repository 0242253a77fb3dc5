"""Second derivatives of nearest_code and vector_quantize, and derivatives as torch.func asks for them."""

import pytest
import torch
from torch import Tensor

from cbtalk.ops import nearest_code, vector_quantize
from tests.helpers.checks import assert_error_budget
from tests.helpers.cpp import needs_cpp
from tests.ops.test_nearest_code import leaves_of, trained


def penalised(z: Tensor, codebook: Tensor, backend: str) -> Tensor:
    """A loss with gradient penalties of both ops in it, whose gradient needs second derivatives."""
    quantized = vector_quantize(z, codebook, 0.3, gamma=0.7, backend=backend)
    distances = nearest_code(z, codebook, backend=backend).distances
    value = quantized.codes.sin().sum() + 20 * quantized.loss + (distances + distances.square()).sum()
    gradients = torch.autograd.grad(value, (z, codebook), create_graph=True)
    return value + sum((x.square().sum() for x in gradients), torch.zeros(()))


@needs_cpp
def test_gradient_penalty() -> None:
    z, codebook = trained(60, 12, 5)
    results = []
    for name, dtype in (("cpp", torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        results.append(torch.autograd.grad(penalised(*leaves, name), leaves))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@needs_cpp
@pytest.mark.parametrize("of", ["codes", "loss", "distances"])
def test_hessian_vector_products(of: str) -> None:
    z, codebook = trained(60, 12, 5)
    vectors, weight = (torch.randn_like(z), torch.randn_like(codebook)), torch.randn(60, 5)
    results = []
    for name, dtype in (("cpp", torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        if of == "distances":
            value = (nearest_code(*leaves, backend=name).distances * weight[:, 0].to(dtype)).sin().sum()
        else:
            found = vector_quantize(*leaves, gamma=0.5, backend=name)
            value = (found.codes * weight.to(dtype)).sin().sum() if of == "codes" else found.loss.square()
        gradients = torch.autograd.grad(value, leaves, create_graph=True, materialize_grads=True)
        along = torch.stack([(g * v.to(dtype)).sum() for g, v in zip(gradients, vectors, strict=True)]).sum()
        results.append(torch.autograd.grad(along, leaves, allow_unused=True, materialize_grads=True))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@needs_cpp
def test_third_derivatives() -> None:
    results = []
    for name, dtype in (("cpp", torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        torch.manual_seed(3)
        z, codebook = leaves_of(*trained(40, 8, 3), dtype)
        value = nearest_code(z, codebook, backend=name).distances.pow(3).sum()
        first = torch.autograd.grad(value, (z, codebook), create_graph=True)
        second = torch.autograd.grad(first[0].pow(2).sum() + first[1].pow(2).sum(), (z, codebook), create_graph=True)
        results.append(torch.autograd.grad(second[0].sin().sum() + second[1].sum(), (z, codebook)))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@needs_cpp
def test_functional_transforms_give_what_autograd_gives() -> None:
    z, codebook = trained(30, 8, 4)

    def value(z: Tensor, codebook: Tensor) -> Tensor:
        found = vector_quantize(z, codebook, backend="cpp")
        return found.loss + found.codes.sin().sum() + nearest_code(z, codebook, backend="cpp").distances.mean()

    def slope(z: Tensor, codebook: Tensor) -> Tensor:
        grad_z, grad_codebook = torch.func.grad(value, (0, 1))(z, codebook)
        return grad_z.square().sum() + grad_codebook.square().sum()

    leaves = leaves_of(z, codebook, torch.float32)
    first = torch.autograd.grad(value(*leaves), leaves, create_graph=True)
    second = torch.autograd.grad(first[0].square().sum() + first[1].square().sum(), leaves)
    for transformed, expected in (
        (torch.func.grad(value, (0, 1))(z, codebook), first),
        (torch.func.vjp(value, z, codebook)[1](torch.ones(())), first),
        (torch.func.grad(slope, (0, 1))(z, codebook), second),
    ):
        for ours, theirs in zip(transformed, expected, strict=True):
            torch.testing.assert_close(ours, theirs)


@needs_cpp
def test_gradients_of_every_sample_and_of_every_head() -> None:
    z, codebook = torch.randn(3, 20, 4), torch.randn(3, 8, 4)

    def value(z: Tensor, codebook: Tensor) -> Tensor:
        found = vector_quantize(z, codebook, backend="cpp")
        return found.loss + found.codes.sin().sum()

    for codebook_dim, codes in ((None, codebook[0]), (0, codebook)):
        batched = torch.func.vmap(torch.func.grad(value, (0, 1)), in_dims=(0, codebook_dim))(z, codes)
        for i in range(3):
            leaves = leaves_of(z[i], codes if codebook_dim is None else codes[i], torch.float32)
            for ours, expected in zip(batched, torch.autograd.grad(value(*leaves), leaves), strict=True):
                torch.testing.assert_close(ours[i], expected)


def test_functional_call_of_a_module() -> None:
    class Quantizer(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.codebook = torch.nn.Parameter(torch.randn(8, 4))

        def forward(self, z: Tensor) -> Tensor:
            return vector_quantize(z, self.codebook).loss

    module, z = Quantizer(), torch.randn(20, 4)
    parameters = dict(module.named_parameters())
    ours = torch.func.grad(lambda p: torch.func.functional_call(module, p, (z,)))(parameters)["codebook"]
    expected = torch.autograd.grad(module(z), module.codebook)[0]
    torch.testing.assert_close(ours, expected)


def test_forward_mode_is_that_of_the_reference() -> None:
    z, codebook = trained(30, 8, 4)
    tangents = torch.randn_like(z), torch.randn_like(codebook)
    ours = torch.func.jvp(lambda z, e: nearest_code(z, e).distances, (z, codebook), tangents)[1]
    chosen = nearest_code(z, codebook).indices
    expected = 2 * ((z - codebook[chosen]) * (tangents[0] - tangents[1][chosen])).sum(1)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("heads", [(), (2,)], ids=["one codebook", "two codebooks"])
def test_gradcheck_of_the_reference(heads: tuple[int, ...]) -> None:
    z, codebook = (torch.randn(*heads, rows, 3, dtype=torch.float64, requires_grad=True) for rows in (12, 5))
    ignored = torch.arange(12) % 5 == 1

    def outputs(z: Tensor, codebook: Tensor) -> Tensor:
        return nearest_code(z, codebook, ignored=ignored).distances

    torch.autograd.gradcheck(outputs, (z, codebook))
    torch.autograd.gradgradcheck(outputs, (z, codebook))
