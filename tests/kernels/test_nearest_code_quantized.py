from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from cbtalk.ops import nearest_code, vector_quantize
from cbtalk.reference import nearest_code as reference
from tests.helpers.checks import assert_error_budget, assert_nearest
from tests.kernels.test_nearest_code import HEADS, with_heads
from tests.kernels.where import Place, everywhere, on_a_gpu
from tests.ops.test_nearest_code import lay_out, leaves_of, trained, untrained

HALF = [(torch.float16, torch.float16), (torch.float16, torch.float32), (torch.float32, torch.float16)]


def check_quantized(
    place: Place, pair: Sequence[Tensor], ignored: Tensor | None = None, beta: float = 0.3, gamma: float = 1.0
) -> None:
    """Values and gradients of both ops for rows and codes, each in a dtype of its own."""
    z, codebook = pair
    weight, row_weight = torch.randn_like(z, dtype=torch.float32), torch.randn(z.shape[:-1], device=z.device)
    results = []
    for name, widen in ((place.backend, False), ("reference", False), ("reference", True)):
        leaves = tuple((x.double() if widen else x.clone()).requires_grad_() for x in (z, codebook))
        found = vector_quantize(leaves[0], leaves[1], beta, gamma=gamma, ignored=ignored, sums=True, backend=name)
        distances = nearest_code(*leaves, ignored=ignored, backend=name).distances
        value = 0.01 * (found.codes * weight).sum() + 3 * found.loss
        value = value + 0.01 * (distances * row_weight.to(distances.dtype)).sum()
        gradients = torch.autograd.grad(value, leaves)
        results.append((found.loss.detach(), distances.detach(), found.sums, *gradients))
        if name == place.backend:
            expected = reference_of_indices(leaves[1].detach(), found.indices, leaves[0].dtype)
            assert torch.equal(found.codes.detach(), expected)
            assert torch.equal(found.counts, counts_of(found.indices, codebook.shape[-2]))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


def reference_of_indices(codebook: Tensor, indices: Tensor, dtype: torch.dtype) -> Tensor:
    """The codes that indices name, zeros for -1."""
    chosen = reference.chosen_rows(codebook, indices)
    return chosen.masked_fill(indices[..., None] < 0, 0.0).to(dtype)


def counts_of(indices: Tensor, codes: int) -> Tensor:
    """The number of times that each code is named, head by head."""
    return (indices[..., None, :] == torch.arange(codes, device=indices.device)[:, None]).sum(-1)


@everywhere
@pytest.mark.parametrize("size", [(1, 1, 1), (97, 33, 15), (300, 5, 40), (200, 3, 70)], ids=str)
def test_values_and_gradients(size: tuple[int, int, int], place: Place) -> None:
    check_quantized(place, place.put(*trained(*size)))


@everywhere
@pytest.mark.parametrize("weights", [(0.25, 0.0), (0.0, 1.0), (0.5, 2.0)], ids=str)
def test_weights_of_the_loss(weights: tuple[float, float], place: Place) -> None:
    check_quantized(place, place.put(*trained(60, 10, 8)), None, *weights)
    z, codebook = (x.requires_grad_() for x in place.put(*trained(60, 10, 8)))
    loss = vector_quantize(z, codebook, weights[0], gamma=weights[1], backend=place.backend).loss
    # As autograd has it: nothing comes to what has no weight.
    gradients = torch.autograd.grad(loss, (z, codebook), allow_unused=True)
    for weight, gradient in zip(weights, gradients, strict=True):
        assert (gradient is not None and gradient.ne(0).any()) == (weight != 0)


@everywhere
@pytest.mark.parametrize("dtypes", HALF, ids=str)
def test_float16(dtypes: tuple[torch.dtype, torch.dtype], place: Place) -> None:
    z, codebook = (x.to(dtype) for x, dtype in zip(place.put(*trained(90, 33, 20)), dtypes, strict=True))
    check_quantized(place, (z, codebook))


@on_a_gpu
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32, torch.float16], ids=str)
def test_bfloat16(other: torch.dtype, place: Place) -> None:
    z, codebook = place.put(*trained(300, 100, 40))
    check_quantized(place, (z.bfloat16(), codebook.to(other)))
    check_quantized(place, (z.to(other), codebook.bfloat16()))


@on_a_gpu
@pytest.mark.parametrize("size", [(16384, 1024, 32), (16384, 1024, 256), (1000, 3000, 64)], ids=str)
def test_sizes_of_the_model(size: tuple[int, int, int], place: Place) -> None:
    for make in (trained, untrained):
        z, codebook = place.put(*make(*size))
        assert_nearest(nearest_code(z, codebook, backend=place.backend).indices, z, codebook)
    check_quantized(place, place.put(*trained(*size)))


@everywhere
@pytest.mark.parametrize("size", HEADS, ids=str)
def test_values_and_gradients_of_heads(size: tuple[int, int, int, int], place: Place) -> None:
    check_quantized(place, place.put(*with_heads(*size)))


@everywhere
@pytest.mark.parametrize("H", [None, 2])
@pytest.mark.parametrize("shared", [True, False])
def test_ignored_rows_count_nowhere(shared: bool, H: int | None, place: Place) -> None:
    """Whatever is in them, in value and in gradient."""
    z, codebook = place.put(*(trained(150, 10, 18) if H is None else with_heads(H, 70, 10, 18)))
    (ignored,) = place.put(torch.rand(z.shape[-2:-1] if shared else z.shape[:-1]) < 0.3)
    check_quantized(place, (z, codebook), ignored)
    spoiled = z.clone()
    hidden = ignored.expand(z.shape[:-1])
    spoiled[hidden] = torch.tensor([torch.nan, torch.inf, 1e38] * 6, device=z.device)
    upstream = torch.randn_like(z)
    results = []
    for rows, noise in ((z, 0.0), (spoiled, torch.nan)):
        leaves = leaves_of(rows, codebook, torch.float32)
        found = vector_quantize(*leaves, ignored=ignored, sums=True, backend=place.backend)
        distances = nearest_code(*leaves, ignored=ignored, backend=place.backend).distances
        upstream = upstream.masked_fill(hidden[..., None], noise)
        gradients = torch.autograd.grad(
            (found.codes, found.loss, distances), leaves, (upstream, torch.ones_like(found.loss), upstream[..., 0])
        )
        results.append((*found, distances, *gradients))
    for plain, other in zip(*results, strict=True):
        assert torch.equal(plain, other)
    codes, _, indices, counts, _, distances, grad_z, _ = results[1]
    assert torch.equal(indices < 0, hidden) and indices[hidden].eq(-1).all()
    assert codes[hidden].eq(0).all() and distances[hidden].eq(0).all() and grad_z[hidden].eq(0).all()
    assert int(counts.sum()) == int((~hidden).sum())


@everywhere
def test_all_rows_ignored(place: Place) -> None:
    z, codebook = (x.requires_grad_() for x in place.put(*with_heads(2, 70, 5, 6)))
    (ignored,) = place.put(torch.ones(70, dtype=torch.bool))
    found = vector_quantize(z, codebook, ignored=ignored, sums=True, backend=place.backend)
    assert found.loss.isnan() and found.indices.eq(-1).all()
    assert found.counts.eq(0).all() and found.sums.eq(0).all() and found.codes.eq(0).all()
    gradients = torch.autograd.grad(found.loss + found.codes.sum(), (z, codebook))
    assert all(gradient.eq(0).all() for gradient in gradients)


@everywhere
def test_float16_rows_are_searched_in_float32(place: Place) -> None:
    z, codebook = (x.half() for x in place.put(*untrained(90, 64, 40)))
    found = vector_quantize(z, codebook, backend=place.backend)
    assert_nearest(found.indices, z.float(), codebook.float())
    assert found.codes.dtype == torch.float16 and found.loss.dtype == torch.float32


@everywhere
@pytest.mark.parametrize("layout", ["transposed", "sliced", "offset"])
def test_layouts(layout: str, place: Place) -> None:
    z, codebook = place.put(*trained(70, 40, 36))
    laid_out = lay_out(z.cpu(), layout).to(z.device), lay_out(codebook.cpu(), layout).to(z.device)
    if layout == "sliced":  # a copy to a device leaves out the gaps
        laid_out = torch.cat([z, z], 1)[:, :36], torch.cat([codebook, codebook], 1)[:, :36]
    results = []
    for pair in ((z, codebook), laid_out):
        leaves = pair[0].detach().requires_grad_(), pair[1].detach().requires_grad_()
        found = vector_quantize(*leaves, backend=place.backend)
        results.append((*found, *torch.autograd.grad(found.loss + found.codes.square().sum(), leaves)))
    for plain, other in zip(*results, strict=True):
        assert torch.equal(plain, other)


@everywhere
def test_gradients_of_the_codes_alone_and_of_the_loss_alone(place: Place) -> None:
    z, codebook = (x.requires_grad_() for x in place.put(*trained(20, 6, 4)))
    found = vector_quantize(z, codebook, 0.25, backend=place.backend)
    weight = torch.randn_like(z)
    straight = torch.autograd.grad((found.codes * weight).sum(), z, retain_graph=True)[0]
    assert torch.equal(straight, weight)
    grad_z = torch.autograd.grad(found.loss, z)[0]
    torch.testing.assert_close(grad_z, 0.25 * 2 / 80 * (z - codebook[found.indices]).detach())
