import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk import _native
from cbtalk.errors import BackendError
from cbtalk.ops import nearest_code, vector_quantize
from cbtalk.reference import nearest_code as reference
from tests.checks import assert_error_budget, assert_nearest

needs_cpp = pytest.mark.skipif(_native.why_not_cpp() is not None, reason=str(_native.why_not_cpp()))
backends = pytest.mark.parametrize("backend", ["reference", pytest.param("cpp", marks=needs_cpp)])

# N, K, D: one row and one code; sizes that are no multiple of any tile; several row blocks; the model's own.
SIZES = [(1, 1, 1), (5, 3, 7), (97, 33, 16), (300, 100, 33), (200, 1024, 32), (100, 1024, 256)]


def trained(N: int, K: int, D: int) -> tuple[Tensor, Tensor]:
    codebook = torch.randn(K, D)
    return codebook[torch.randint(K, (N,))] + 0.1 * torch.randn(N, D), codebook


def untrained(N: int, K: int, D: int) -> tuple[Tensor, Tensor]:
    """Codes as they are initialised, far smaller than the rows: here the expanded distance picks wrong codes."""
    return torch.randn(N, D), torch.empty(K, D).uniform_(-1 / K, 1 / K)


def leaves_of(z: Tensor, codebook: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    return z.to(dtype, copy=True).requires_grad_(), codebook.to(dtype, copy=True).requires_grad_()


@backends
@pytest.mark.parametrize("make", [trained, untrained])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_nearest_in_float64(
    make: Callable[[int, int, int], tuple[Tensor, Tensor]], size: tuple[int, int, int], backend: str
) -> None:
    z, codebook = make(*size)
    indices, distances = nearest_code(z, codebook, backend=backend)
    assert indices.dtype == torch.int64 and indices.shape == distances.shape == (size[0],)
    assert_nearest(indices, z, codebook)
    chosen = codebook[indices]
    assert_error_budget(distances, (z - chosen).square().sum(1), (z.double() - chosen.double()).square().sum(1))


@needs_cpp
@settings(deadline=None, max_examples=60)
@given(
    N=st.integers(0, 120),
    K=st.integers(1, 80),
    D=st.integers(1, 40),
    layout=st.sampled_from(["contiguous", "transposed", "sliced", "offset"]),
    level=st.sampled_from(["baseline", "avx2", "avx512"]),
)
def test_any_shape_and_layout(N: int, K: int, D: int, layout: str, level: str) -> None:
    z, codebook = lay_out(torch.randn(N, D), layout), lay_out(torch.randn(K, D), layout)
    with _native.use_cpu_level(level):
        found = vector_quantize(z, codebook, backend="cpp")
    if N:
        assert_nearest(found.indices, z, codebook)
    assert torch.equal(found.codes, codebook[found.indices])
    assert torch.equal(found.counts, torch.bincount(found.indices, minlength=K))


def lay_out(tensor: Tensor, layout: str) -> Tensor:
    """The same numbers at other strides; "offset" begins where no vector is aligned."""
    if layout == "transposed":
        return tensor.mT.contiguous().mT
    if layout == "sliced":
        return torch.nn.functional.pad(tensor, (0, 3), value=torch.nan)[..., : tensor.shape[-1]]
    if layout == "offset":
        return torch.cat([torch.full((1,), torch.nan), tensor.flatten()])[1:].view(tensor.shape)
    return tensor


@backends
def test_codes_of_expanded_rows_and_of_a_prefix(backend: str) -> None:
    row, codebook = torch.randn(1, 24), torch.randn(64, 24)
    alone = nearest_code(row, codebook[:48], backend=backend)
    many = nearest_code(row.expand(50, 24), codebook[:48], backend=backend)
    assert torch.equal(many.indices, alone.indices.expand(50))


@backends
def test_smallest_index_of_equally_near_codes(backend: str) -> None:
    codes = torch.randn(45, 6)
    for copies in (torch.cat([codes, codes, codes]), codes.repeat_interleave(3, 0)):
        indices = nearest_code(codes, copies, backend=backend).indices
        first = (copies == codes[:, None]).all(2).int().argmax(1)
        assert torch.equal(indices, first)
    assert nearest_code(torch.randn(9, 6), torch.zeros(100, 6), backend=backend).indices.eq(0).all()


@backends
def test_rows_and_codes_that_are_not_finite(backend: str) -> None:
    z, codebook = torch.randn(30, 8), torch.randn(50, 8)
    z[7, 3] = torch.nan
    z[9] = torch.inf
    codebook[5] = torch.nan
    found = vector_quantize(z, codebook, backend=backend)
    distances = nearest_code(z, codebook, backend=backend).distances
    assert found.indices[7] == 0 and distances[7].isnan() and not distances[8].isnan()
    assert distances[9].isinf()
    assert not found.indices.eq(5).any()
    assert torch.equal(found.codes, codebook[found.indices])
    others = torch.arange(30)[~torch.isin(torch.arange(30), torch.tensor([7, 9]))]
    assert torch.equal(found.indices[others], nearest_code(z[others], codebook, backend=backend).indices)


@backends
def test_no_rows(backend: str) -> None:
    z, codebook = torch.randn(0, 8, requires_grad=True), torch.randn(5, 8, requires_grad=True)
    found = vector_quantize(z, codebook, backend=backend)
    assert found.codes.shape == (0, 8) and found.indices.shape == (0,) and found.loss.isnan()
    assert torch.equal(found.counts, torch.zeros(5, dtype=torch.int64))
    nearest_code(z, codebook, backend=backend).distances.sum().backward()
    assert codebook.grad is not None and codebook.grad.eq(0).all()


@backends
def test_rows_do_not_depend_on_one_another(backend: str) -> None:
    z, codebook = untrained(250, 96, 32)
    whole = nearest_code(z, codebook, backend=backend)
    for part in (slice(0, 1), slice(3, 100), slice(101, 250)):
        assert torch.equal(nearest_code(z[part], codebook, backend=backend).indices, whole.indices[part])


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


def test_gradcheck_of_the_reference() -> None:
    z, codebook = (x.double().requires_grad_() for x in trained(12, 5, 3))
    torch.autograd.gradcheck(lambda z, codebook: nearest_code(z, codebook).distances, (z, codebook))


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


@needs_cpp
def test_same_bits_with_any_number_of_threads() -> None:
    z, codebook = untrained(2000, 300, 17)
    threads, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            leaves = leaves_of(z, codebook, torch.float32)
            found = vector_quantize(*leaves, backend="cpp")
            results.append((*found, *torch.autograd.grad(found.loss + found.codes.square().sum(), leaves)))
    finally:
        torch.set_num_threads(threads)
    for result in results[1:]:
        for first, other in zip(results[0], result, strict=True):
            assert torch.equal(first, other)


def test_autocast_does_not_round_the_search() -> None:
    z, codebook = untrained(400, 256, 32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        indices = nearest_code(z, codebook, backend="reference").indices
    assert_nearest(indices, z, codebook)


def test_bfloat16_rows_are_searched_in_float32() -> None:
    z, codebook = trained(100, 50, 16)
    z = z.bfloat16().requires_grad_()
    found = vector_quantize(z, codebook)
    assert_nearest(found.indices, z.detach().float(), codebook)
    assert found.codes.dtype == torch.bfloat16 and found.loss.dtype == torch.float32
    found.codes.sum().backward()
    assert z.grad is not None and z.grad.dtype == torch.bfloat16


def test_arguments_that_do_not_fit() -> None:
    z, codebook = torch.randn(4, 3), torch.randn(5, 3)
    for wrong in ((z[0], codebook), (z, codebook[:, :2]), (z, codebook[:0]), (z.long(), codebook.long())):
        with pytest.raises(ValueError, match="codebook"):
            nearest_code(*wrong)
        with pytest.raises(ValueError, match="codebook"):
            vector_quantize(*wrong)
    with pytest.raises(BackendError, match=r"float32|compiled library"):
        nearest_code(z.double(), codebook.double(), backend="cpp")


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
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced"])
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


def step(z: Tensor, codebook: Tensor, backend: str) -> Tensor:
    codes, loss, _, counts = vector_quantize(z, codebook, backend=backend)
    indices, distances = nearest_code(z, codebook, backend=backend)
    return codes.square().sum() + loss + distances.mean() + (counts.sum() + indices.sum()).float()


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
@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_environment_lowers_the_instruction_level(level: str) -> None:
    if _native.cpu_level() == "baseline" and level == "avx2":
        pytest.skip("this processor has no AVX2")
    program = (
        "import torch; from cbtalk import _native; from cbtalk.ops import nearest_code; torch.manual_seed(0);"
        "z = torch.randn(300, 20); i = nearest_code(z, z, backend='cpp').indices;"
        "assert torch.equal(i, torch.arange(300)); print(_native.cpu_level())"
    )
    environment = {**os.environ, "CBTALK_CPU_ISA": level}
    root = Path(__file__).parents[2]
    run = subprocess.run([sys.executable, "-c", program], env=environment, cwd=root, capture_output=True, text=True)
    assert run.stdout.strip() == level, run.stderr


def test_reference_agrees_with_all_distances() -> None:
    z, codebook = trained(50, 20, 6)
    found = reference.nearest_code(z.double(), codebook.double())
    smallest, where = (z[:, None] - codebook).double().square().sum(2).min(1)
    assert torch.equal(found.indices, where)
    torch.testing.assert_close(found.distances, smallest, rtol=1e-6, atol=1e-6)
