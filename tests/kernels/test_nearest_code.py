from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cbtalk.errors import BackendError
from cbtalk.ops import nearest_code, vector_quantize
from tests.helpers.checks import assert_error_budget, assert_nearest
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, everywhere, on_a_gpu
from tests.ops.test_nearest_code import leaves_of, step, trained, untrained

# N, K, D: one of each; sizes that are no multiple of any tile; one chunk of D exactly; several tiles of everything.
SIZES = [(1, 1, 1), (5, 3, 7), (70, 100, 32), (97, 40, 33), (140, 130, 70)]
# H, N, K, D: one head; more rows or codes than a tile has; fewer rows and more codes than that.
HEADS = [(1, 5, 3, 7), (3, 70, 33, 15), (2, 140, 130, 40), (3, 3, 150, 9)]


def with_heads(H: int, N: int, K: int, D: int) -> tuple[Tensor, Tensor]:
    """Rows and codes of H codebooks."""
    z, codebook = zip(*(trained(N, K, D) for _ in range(H)), strict=True)
    return torch.stack(z), torch.stack(codebook)


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


@everywhere
@pytest.mark.parametrize("size", HEADS, ids=str)
def test_heads_are_searched_as_if_alone(size: tuple[int, int, int, int], place: Place) -> None:
    z, codebook = place.put(*with_heads(*size))
    # As a projection gives them: the heads of a row side by side.
    interleaved = [x.transpose(0, 1).contiguous().transpose(0, 1) for x in (z, codebook)]
    for pair in ((z, codebook), interleaved):
        indices, distances = nearest_code(*pair, backend=place.backend)
        found = vector_quantize(*pair, backend=place.backend)
        for head in range(size[0]):
            alone = nearest_code(z[head], codebook[head], backend=place.backend)
            assert torch.equal(indices[head], alone.indices) and torch.equal(distances[head], alone.distances)
            quantized = vector_quantize(z[head], codebook[head], backend=place.backend)
            assert torch.equal(found.codes[head], quantized.codes)
            assert torch.equal(found.indices[head], quantized.indices)
            assert torch.equal(found.counts[head], quantized.counts)


@everywhere
def test_smallest_index_of_equally_near_codes(place: Place) -> None:
    for D in (6, 40):
        (codes,) = place.put(torch.randn(45, D))
        for copies in (torch.cat([codes, codes, codes]), codes.repeat_interleave(3, 0)):
            indices = nearest_code(codes[::4], copies, backend=place.backend).indices
            assert torch.equal(indices, (copies == codes[::4, None]).all(2).int().argmax(1))
        assert nearest_code(codes, torch.zeros_like(codes), backend=place.backend).indices.eq(0).all()


@everywhere
@pytest.mark.parametrize("H", [None, 2])
def test_ignored_rows_have_no_code(H: int | None, place: Place) -> None:
    z, codebook = place.put(*(trained(70, 10, 18) if H is None else with_heads(H, 70, 10, 18)))
    (ignored,) = place.put(torch.rand(z.shape[:-1]) < 0.3)
    plain = nearest_code(z, codebook, backend=place.backend)
    z[ignored] = torch.nan
    found = nearest_code(z, codebook, ignored=ignored, backend=place.backend)
    assert torch.equal(found.indices, plain.indices.masked_fill(ignored, -1))
    assert torch.equal(found.distances, plain.distances.masked_fill(ignored, 0.0))


def codebooks_with_copies(D: int) -> tuple[Tensor, list[Tensor]]:
    """Codes, and codebooks of them in which many are equal to others."""
    codes = torch.randn(45, D)
    padding = torch.zeros(60, D)
    signed = padding * torch.randn(60, D).sign()  # -0 is 0
    revived = torch.cat([codes, codes[torch.randint(3, (80,))]])
    return codes, [torch.cat([codes, padding]), torch.cat([signed, codes, padding]), revived[torch.randperm(125)]]


@everywhere
@pytest.mark.parametrize("D", [6, 40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_copies_of_codes_need_no_second_search(dtype: torch.dtype, D: int, place: Place) -> None:
    """That they need none is seen where the second search is broken on purpose."""
    codes, codebooks = codebooks_with_copies(D)
    (z,) = place.put(torch.cat([codes + 0.01 * torch.randn(45, D), 0.01 * torch.randn(20, D)]).to(dtype))
    for codebook in place.put(*codebooks):
        codebook = codebook.to(dtype)
        for heads in ((z, codebook), (z.expand(2, -1, -1), torch.stack([codebook.flip(0), codebook]))):
            found = nearest_code(*heads, backend=place.backend).indices
            assert torch.equal(found.reshape(-1, 65)[-1], first_nearest(z, codebook))
            assert torch.equal(found.reshape(-1, 65)[0], first_nearest(z, heads[1].reshape(-1, len(codebook), D)[0]))


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
@pytest.mark.parametrize("D", DEPTHS)
def test_a_tie_that_the_products_take_for_decided(D: int, place: Place) -> None:
    """Of these elements two parts of 11 bits leave out as much as they can: float32 finds the second code nearer."""
    (z,) = place.put(torch.full((3, D), 1 + 2.0**-10 - 2.0**-23))
    codebook = torch.cat([4 * z[:1], -2 * z[:1]])
    assert nearest_code(z, codebook, backend=place.backend).indices.eq(0).all()


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
def test_no_rows(place: Place) -> None:
    z, codebook = (x.requires_grad_() for x in place.put(torch.randn(0, 8), torch.randn(5, 8)))
    found = vector_quantize(z, codebook, backend=place.backend)
    assert found.codes.shape == (0, 8) and found.indices.shape == (0,) and found.loss.isnan()
    assert found.counts.eq(0).all() and found.counts.shape == (5,)
    assert vector_quantize(z, codebook, sums=True, backend=place.backend).sums.eq(0).all()
    gradients = torch.autograd.grad(nearest_code(z, codebook, backend=place.backend).distances.sum(), (z, codebook))
    assert gradients[0].shape == (0, 8) and gradients[1].eq(0).all()


@everywhere
def test_reasons(place: Place) -> None:
    for wrong, reason in (
        (torch.randn(4, 3).double(), "float32"),
        (torch.randn(4, 0), "at least one element"),
        (torch.randn(1, 1, 1).expand(2**16, 1, 1), "codebooks"),
        (torch.randn(1, 1, 1).expand(2, 2**30, 1), "codes"),
    ):
        (tensor,) = place.put(wrong)
        with pytest.raises(BackendError, match=reason):
            nearest_code(tensor, tensor, backend=place.backend)


@everywhere
def test_opcheck(place: Place) -> None:
    suffix = "_triton" if place.backend == "triton" else ""
    search, quantize, backward = (
        getattr(torch.ops.cbtalk, name + suffix).default
        for name in ("nearest_code", "vector_quantize", "nearest_code_backward")
    )
    for z, codebook in (place.put(torch.randn(30, 7), torch.randn(9, 7)), place.put(*with_heads(2, 9, 5, 3))):
        ignored = torch.rand(z.shape[:-1], device=z.device) < 0.2
        indices, distances, rows = search(z, codebook, ignored, True)
        scalar, K = torch.tensor(2.0, device=z.device), codebook.shape[-2]
        for op, arguments in (
            (search, (z, codebook, None, False)),
            (search, (z.half(), codebook, ignored, True)),
            (quantize, (z.mT.contiguous().mT, codebook, None, 0.25, 1.0, False, False)),
            (quantize, (z, codebook.half(), ignored, 0.25, 0.5, True, True)),
            (backward, (None, distances, z, rows, indices, K, 2.0, 2.0, True, True)),
            (backward, (z, scalar, z, rows, indices, K, 0.5, 1.0, True, False)),
            (backward, (z.half(), scalar, z.half(), rows, indices, K, 0.5, 1.0, False, True)),
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


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_compiles_without_spills(capability: int) -> None:
    for one in compile_in_process("nearest_code", capability):
        assert one.stack == 0 and not one.missing, one
        assert one.shared <= 64 * 1024, one
