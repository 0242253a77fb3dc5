from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cbtalk.errors import BackendError
from cbtalk.ops import nearest_code, vector_quantize
from tests.checks import assert_error_budget, assert_nearest
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, everywhere, on_a_gpu
from tests.ops.test_nearest_code import lay_out, leaves_of, step, trained, untrained

# N, K, D: one of each; sizes that are no multiple of any tile; one chunk of D exactly; several tiles of everything.
SIZES = [(1, 1, 1), (5, 3, 7), (70, 100, 32), (97, 40, 33), (140, 130, 70)]
HALF = [(torch.float16, torch.float16), (torch.float16, torch.float32), (torch.float32, torch.float16)]


@everywhere
@pytest.mark.parametrize("make", [trained, untrained])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_in_float64(
    make: Callable[[int, int, int], tuple[Tensor, Tensor]], size: tuple[int, int, int], place: Place
) -> None:
    z, codebook = place.put(*make(*size))
    indices, distances = nearest_code(z, codebook, backend=place.backend)
    assert indices.dtype == torch.int64 and indices.shape == distances.shape == (size[0],)
    assert_nearest(indices, z, codebook)
    chosen = codebook[indices]
    assert_error_budget(distances, (z - chosen).square().sum(1), (z.double() - chosen.double()).square().sum(1))


def check_quantized(size: tuple[int, int, int], dtypes: tuple[torch.dtype, torch.dtype], place: Place) -> None:
    """Values and gradients of both ops, each argument in a dtype of its own."""
    z, codebook = (x.to(dtype) for x, dtype in zip(place.put(*trained(*size)), dtypes, strict=True))
    weight, row_weight = torch.randn_like(z, dtype=torch.float32), torch.randn(size[0], device=z.device)
    results = []
    for name, widen in ((place.backend, False), ("reference", False), ("reference", True)):
        leaves = [x.double() if widen else x.clone() for x in (z, codebook)]
        for leaf in leaves:
            leaf.requires_grad_()
        found = vector_quantize(leaves[0], leaves[1], 0.3, backend=name)
        distances = nearest_code(leaves[0], leaves[1], backend=name).distances
        value = 0.01 * (found.codes * weight).sum() + 3 * found.loss + 0.01 * distances @ row_weight.to(distances.dtype)
        gradients = torch.autograd.grad(value, leaves)
        assert torch.equal(found.counts, torch.bincount(found.indices, minlength=size[1]))
        assert torch.equal(found.codes.detach(), leaves[1].detach()[found.indices].to(leaves[0].dtype))
        results.append((found.loss.detach(), distances.detach(), *gradients))
    for ours, plain, exact in zip(*results, strict=True):
        assert_error_budget(ours, plain, exact)


@everywhere
@pytest.mark.parametrize("size", [(1, 1, 1), (97, 33, 15), (300, 5, 40), (200, 3, 70)], ids=str)
def test_values_and_gradients(size: tuple[int, int, int], place: Place) -> None:
    check_quantized(size, (torch.float32, torch.float32), place)


@everywhere
@pytest.mark.parametrize("dtypes", HALF, ids=str)
def test_float16(dtypes: tuple[torch.dtype, torch.dtype], place: Place) -> None:
    check_quantized((90, 33, 20), dtypes, place)


@on_a_gpu
@pytest.mark.parametrize("other", [torch.bfloat16, torch.float32, torch.float16], ids=str)
def test_bfloat16(other: torch.dtype, place: Place) -> None:
    check_quantized((300, 100, 40), (torch.bfloat16, other), place)
    check_quantized((300, 100, 40), (other, torch.bfloat16), place)


@on_a_gpu
@pytest.mark.parametrize("size", [(16384, 1024, 32), (16384, 1024, 256), (1000, 3000, 64)], ids=str)
def test_sizes_of_the_model(size: tuple[int, int, int], place: Place) -> None:
    for make in (trained, untrained):
        z, codebook = place.put(*make(*size))
        assert_nearest(nearest_code(z, codebook, backend=place.backend).indices, z, codebook)
    check_quantized(size, (torch.float32, torch.float32), place)


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
def test_smallest_index_of_equally_near_codes(place: Place) -> None:
    for D in (6, 40):
        (codes,) = place.put(torch.randn(45, D))
        for copies in (torch.cat([codes, codes, codes]), codes.repeat_interleave(3, 0)):
            indices = nearest_code(codes[::4], copies, backend=place.backend).indices
            assert torch.equal(indices, (copies == codes[::4, None]).all(2).int().argmax(1))
        assert nearest_code(codes, torch.zeros_like(codes), backend=place.backend).indices.eq(0).all()


def first_nearest(z: Tensor, codebook: Tensor) -> Tensor:
    """The smallest index of the nearest codes in float64."""
    distances = torch.stack([(row - codebook.double()).square().sum(1) for row in z.double()])
    return (distances == distances.amin(1, keepdim=True)).int().argmax(1)


DEPTHS = [1, 3, 16, 17, 20, 32, 256]


@everywhere
@pytest.mark.parametrize("D", DEPTHS)
def test_what_float32_cannot_decide(D: int, place: Place) -> None:
    """Each code has a twin, one rounding away in one column, and each row a pair to choose from."""
    z, codebook = place.put(*trained(24, 80, D))
    twins, column = codebook.clone(), torch.randint(D, (80,), device=z.device)
    codes = torch.arange(80, device=z.device)
    twins[codes, column] = twins[codes, column].nextafter(torch.randn(80, device=z.device))
    codebook = torch.cat([codebook, twins])
    expected = first_nearest(z, codebook)
    assert expected.lt(80).any() and expected.ge(80).any()
    assert torch.equal(nearest_code(z, codebook, backend=place.backend).indices, expected)


@everywhere
@pytest.mark.parametrize("scale", [1e-22, 1.0, 1e25])
def test_as_in_float64_at_any_scale(scale: float, place: Place) -> None:
    for D in DEPTHS:
        z, codebook = (scale * x for x in place.put(*untrained(8, 150, D)))
        found = nearest_code(z, codebook, backend=place.backend).indices
        assert torch.equal(found, first_nearest(z, codebook)), D


@everywhere
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_smallest_index_of_whole_numbers(dtype: torch.dtype, place: Place) -> None:
    for D in DEPTHS:
        z, codebook = (torch.randint(-2, 3, (n, D), device=place.device).to(dtype) for n in (8, 150))
        codebook[40:80] = codebook[:40]
        found = nearest_code(z, codebook, backend=place.backend).indices
        assert torch.equal(found, first_nearest(z, codebook)), D


@everywhere
@pytest.mark.parametrize("D", [8, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_rows_and_codes_that_are_not_finite(dtype: torch.dtype, D: int, place: Place) -> None:
    z, codebook = (x.to(dtype) for x in place.put(torch.randn(30, D), torch.randn(70, D)))
    z[7, 3] = torch.nan
    z[9] = torch.inf
    codebook[5] = torch.nan
    found = vector_quantize(z, codebook, backend=place.backend)
    distances = nearest_code(z, codebook, backend=place.backend).distances
    assert found.indices[7] == 0 and distances[7].isnan() and not distances[8].isnan()
    assert distances[9].isinf()
    assert not found.indices.eq(5).any()
    assert torch.equal(found.codes, codebook[found.indices])
    others = torch.ones(30, dtype=torch.bool, device=z.device)
    others[[7, 9]] = False
    assert torch.equal(found.indices[others], nearest_code(z[others], codebook, backend=place.backend).indices)


@everywhere
def test_a_row_that_is_not_finite_spoils_its_own_code_alone(place: Place) -> None:
    z, codebook = place.put(*trained(200, 3, 9))
    indices = nearest_code(z, codebook).indices
    row = int((indices == 1).nonzero()[0])
    leaves = leaves_of(z, codebook, torch.float32)
    grad = torch.ones(200, device=z.device)
    grad[row] = torch.nan
    distances = nearest_code(*leaves, backend=place.backend).distances
    grad_codebook = torch.autograd.grad(distances, leaves, grad)[1]
    assert torch.equal(grad_codebook.isnan().any(1).cpu(), torch.tensor([False, True, False]))


@everywhere
def test_no_rows(place: Place) -> None:
    z, codebook = (x.requires_grad_() for x in place.put(torch.randn(0, 8), torch.randn(5, 8)))
    found = vector_quantize(z, codebook, backend=place.backend)
    assert found.codes.shape == (0, 8) and found.indices.shape == (0,) and found.loss.isnan()
    assert found.counts.eq(0).all() and found.counts.shape == (5,)
    gradients = torch.autograd.grad(nearest_code(z, codebook, backend=place.backend).distances.sum(), (z, codebook))
    assert gradients[0].shape == (0, 8) and gradients[1].eq(0).all()


@everywhere
def test_one_code_takes_all_rows(place: Place) -> None:
    z, codebook = place.put(torch.randn(333, 5), torch.full((4, 5), 50.0))
    codebook[2] = 0
    check_codebook_gradient(z, codebook, place)
    check_codebook_gradient(z[:192], codebook, place)  # whole chunks alone
    check_codebook_gradient(z[:65], codebook[1:], place)


def check_codebook_gradient(z: Tensor, codebook: Tensor, place: Place) -> None:
    results = []
    for name, dtype in ((place.backend, torch.float32), ("reference", torch.float32), ("reference", torch.float64)):
        leaves = leaves_of(z, codebook, dtype)
        results.append(torch.autograd.grad(vector_quantize(*leaves, backend=name).loss, leaves)[1])
    assert_error_budget(*results)


@everywhere
def test_gradients_of_the_codes_alone_and_of_the_loss_alone(place: Place) -> None:
    z, codebook = (x.requires_grad_() for x in place.put(*trained(20, 6, 4)))
    found = vector_quantize(z, codebook, 0.25, backend=place.backend)
    weight = torch.randn_like(z)
    straight = torch.autograd.grad((found.codes * weight).sum(), (z, codebook), retain_graph=True)
    assert torch.equal(straight[0], weight) and straight[1].eq(0).all()
    grad_z = torch.autograd.grad(found.loss, z)[0]
    torch.testing.assert_close(grad_z, 0.25 * 2 / 80 * (z - codebook[found.indices]).detach())


@everywhere
def test_equal_calls_give_equal_bits(place: Place) -> None:
    z, codebook = place.put(*trained(300, 4, 9))
    results = []
    for _ in range(2):
        leaves = leaves_of(z, codebook, torch.float32)
        found = vector_quantize(*leaves, backend=place.backend)
        results.append((*found, *torch.autograd.grad(found.loss, leaves)))
    for first, second in zip(*results, strict=True):
        assert torch.equal(first, second)


@everywhere
def test_reasons(place: Place) -> None:
    for wrong, reason in ((torch.randn(4, 3).double(), "float32"), (torch.randn(4, 0), "at least one element")):
        (tensor,) = place.put(wrong)
        with pytest.raises(BackendError, match=reason):
            nearest_code(tensor, tensor, backend=place.backend)


@everywhere
def test_opcheck(place: Place) -> None:
    z, codebook = place.put(torch.randn(30, 7), torch.randn(9, 7))
    suffix = "_triton" if place.backend == "triton" else ""
    ops = {name: getattr(torch.ops.cbtalk, name + suffix).default for name in ("nearest_code", "vector_quantize")}
    indices, distances = ops["nearest_code"](z, codebook)
    backwards = {
        name: getattr(torch.ops.cbtalk, f"{name}_backward{suffix}").default
        for name in ("nearest_code", "vector_quantize")
    }
    grad_loss = torch.tensor(2.0, device=z.device)
    for op, arguments in (
        (ops["nearest_code"], (z, codebook)),
        (ops["nearest_code"], (z.half(), codebook)),
        (ops["vector_quantize"], (z.T.contiguous().T, codebook, 0.25)),
        (backwards["nearest_code"], (distances, z, codebook, indices)),
        (backwards["vector_quantize"], (z.contiguous(), grad_loss, z, codebook, indices, 0.25)),
        (backwards["vector_quantize"], (None, grad_loss, z.half(), codebook, indices, 0.25)),
    ):
        torch.library.opcheck(op, arguments)


@everywhere
def test_compiles_in_one_graph(place: Place) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend="aot_eager")
    for N in (20, 33):
        z, codebook = place.put(torch.randn(N, 8), torch.randn(12, 8))
        results = []
        for function in (step, compiled):
            leaves = leaves_of(z, codebook, torch.float32)
            value = function(*leaves, place.backend)
            results.append((value.detach(), *torch.autograd.grad(value, leaves)))
        for eager, ours in zip(*results, strict=True):
            torch.testing.assert_close(eager, ours)


@on_a_gpu
def test_captured_in_a_graph(place: Place) -> None:
    z, codebook = place.put(*trained(500, 100, 32))

    def run() -> tuple[Tensor, ...]:
        leaves = leaves_of(z, codebook, torch.float32)
        found = vector_quantize(*leaves, backend=place.backend)
        return *found, *torch.autograd.grad(found.loss + found.codes.square().sum(), leaves)

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        run()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = run()
    z.copy_(torch.randn_like(z))
    graph.replay()
    for ours, eager in zip(captured, run(), strict=True):
        assert torch.equal(ours, eager)


@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiles_without_spills(capability: int) -> None:
    for one in compile_in_process("nearest_code", capability):
        assert one.stack == 0 and not one.missing, one
        assert one.shared <= 64 * 1024, one
