"""codebook_attention and self_attention on the GPU backends, and what the compiler makes of Triton's kernels."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from cbtalk import _triton
from cbtalk.errors import BackendError
from cbtalk.ops import codebook_attention, self_attention
from cbtalk.reference import codebook_attention as reference
from tests.helpers.checks import assert_error_budget, assert_op_right, with_gradients
from tests.kernels.aot import compile_in_process
from tests.kernels.where import Place, everywhere, on_a_gpu

pytestmark = pytest.mark.skipif(_triton.why_not_triton() is not None, reason=str(_triton.why_not_triton()))

DTYPES = [torch.float32, torch.float16]
MOST_REGISTERS = 250  # of 255


def assert_right(
    place: Place, op: Callable[..., Tensor], plain: Callable[..., Tensor], inputs: list[Tensor], **arguments: object
) -> None:
    """Output and gradients against the reference in the same dtype on the same device, judged in float64."""
    assert_op_right(op, plain, place.put(*inputs), backend=place.backend, **arguments)


def codebook_inputs(batch: int, tokens: int, keys: int, width: int, dtype: torch.dtype = torch.float32) -> list[Tensor]:
    shapes = ((batch, tokens, width), (keys, width), (keys, width))
    return [torch.randn(shape).to(dtype) for shape in shapes]


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
# Rows and keys that fill no tile, several tiles of each, (at d = 4 and 8) several chunks of rows, and at last more keys
# than fit into shared memory.
@pytest.mark.parametrize(
    ("head_size", "heads", "batch", "tokens", "keys"),
    [(4, 2, 2, 260, 70), (8, 2, 2, 300, 40), (16, 4, 2, 150, 131), (32, 2, 2, 150, 131), (4, 2, 1, 40, 1030)],
)
def test_codebook_attention(
    place: Place, head_size: int, heads: int, batch: int, tokens: int, keys: int, dtype: torch.dtype
) -> None:
    inputs = codebook_inputs(batch, tokens, keys, heads * head_size, dtype)
    assert_right(place, codebook_attention, reference.codebook_attention, inputs, heads=heads)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_size", [1, 3, 5, 7, 24, 64, 100, 128])
def test_other_head_sizes(place: Place, head_size: int, dtype: torch.dtype) -> None:
    heads = max(3, 32 // head_size)  # enough numbers for a steady maximum
    inputs = codebook_inputs(2, 70, 70, heads * head_size, dtype)
    if place.backend == "cuda":
        with pytest.raises(BackendError, match="heads of 4, 8, 16, 32 columns"):
            codebook_attention(*place.put(*inputs), heads=heads, backend="cuda")
    else:
        assert_right(place, codebook_attention, reference.codebook_attention, inputs, heads=heads)


@everywhere
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("head_size", [4, 32])
def test_self_attention(place: Place, head_size: int, dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 4, 80, 2 * head_size).to(dtype)
    mask = torch.rand(4, 80) < torch.tensor([[0.0], [0.3], [0.99], [1.0]])
    mask[2, 0] = False
    for key_mask in (None, *place.put(mask)):
        assert_right(place, self_attention, reference.self_attention, [query, key, value], heads=2, key_mask=key_mask)


@on_a_gpu
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
@pytest.mark.parametrize("keys", [256, 1024])
@pytest.mark.parametrize("head_size", [4, 32])
def test_the_models_shapes(place: Place, head_size: int, keys: int, dtype: torch.dtype) -> None:
    inputs = codebook_inputs(4, 1024, keys, 8 * head_size, dtype)
    assert_right(place, codebook_attention, reference.codebook_attention, inputs, heads=8)
    own = list(torch.randn(3, 4, 1024, 8 * head_size).to(dtype))
    assert_right(place, self_attention, reference.self_attention, own, heads=8)


@everywhere
def test_slices_of_projections(place: Place) -> None:
    qkv = torch.randn(2, 70, 3 * 32)

    def attend(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
        return lambda x, **arguments: op(*x.chunk(3, dim=-1), heads=4, **arguments)

    assert_right(place, attend(self_attention), attend(reference.self_attention), [qkv])
    key, value = torch.randn(40, 64)[:9].chunk(2, dim=-1)  # a prefix of a projected codebook
    turned = torch.randn(70, 2, 32).transpose(0, 1)  # batch stride below the row stride
    every_other = torch.randn(2, 70, 64)[..., ::2]  # columns apart
    shifted = torch.randn(2, 70, 33)[..., 1:]  # rows that begin at no multiple of 16 bytes
    for query in (turned, every_other, shifted):
        assert_right(place, codebook_attention, reference.codebook_attention, [query, key, value], heads=4)


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_an_expanded_gradient(place: Place, head_size: int) -> None:
    leaves = [x.requires_grad_() for x in place.put(*codebook_inputs(2, 20, 9, 2 * head_size))]

    def gradients(backend: str) -> tuple[Tensor, ...]:
        return torch.autograd.grad(codebook_attention(*leaves, heads=2, backend=backend).sum(), leaves)

    for one, other in zip(gradients(place.backend), gradients("reference"), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@everywhere
@pytest.mark.parametrize("keys", [1, 2])
@pytest.mark.parametrize("head_size", [4, 32])
def test_one_query_and_few_keys(place: Place, head_size: int, keys: int) -> None:
    inputs = place.put(*codebook_inputs(1, 1, keys, head_size))
    actual = with_gradients(codebook_attention, inputs, heads=1, backend=place.backend)
    exact = with_gradients(reference.codebook_attention, [x.double() for x in inputs], heads=1)
    for one, truth in zip(actual, exact, strict=True):
        torch.testing.assert_close(one.double(), truth, rtol=1e-5, atol=1e-6)


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_logits_of_ten_thousand_neither_overflow_nor_smear(place: Place, head_size: int) -> None:
    query, key, value = place.put(*codebook_inputs(1, 40, 150, 2 * head_size))
    query, key = 70 * query, 70 * key
    out = codebook_attention(query, key, value, heads=2, backend=place.backend)
    exact = reference.codebook_attention(query.double(), key.double(), value.double(), heads=2)
    assert_error_budget(out, reference.codebook_attention(query, key, value, heads=2), exact)
    # One key 10^4 above the others takes all; far below them, nothing.
    key, value = torch.zeros(100, head_size), torch.randn(100, head_size)
    others = torch.cat([value[:70], value[71:]]).mean(0)
    for logit, expected in ((1e4, value[70]), (-1e4, others)):
        key[70] = logit
        ones = torch.full((1, 3, head_size), 0.5)
        out = codebook_attention(*place.put(ones, key, value), heads=1, backend=place.backend).cpu()
        torch.testing.assert_close(out, expected.expand(1, 3, head_size), rtol=1e-5, atol=1e-6)


@everywhere
@pytest.mark.parametrize("head_size", [4, 8])
def test_gradients_where_few_keys_take_all(place: Place, head_size: int) -> None:
    query, key, value = codebook_inputs(1, 128, 96, 8 * head_size)
    inputs = [10 * query, 10 * key, value]  # logits of hundreds: all passes must have the same weights
    assert_right(place, codebook_attention, reference.codebook_attention, inputs, heads=8)


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_the_maximum_may_rise_in_every_tile(place: Place, head_size: int) -> None:
    key = torch.linspace(-300, 300, 200)[:, None].repeat(1, head_size)
    inputs = [torch.randn(1, 30, head_size), key, torch.randn(200, head_size)]
    assert_right(place, codebook_attention, reference.codebook_attention, inputs, heads=1)


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_one_bad_query_or_masked_key_stays_where_it_is(place: Place, head_size: int) -> None:
    query, key, value = codebook_inputs(1, 50, 20, 2 * head_size)
    query[0, 7, 0] = float("nan")  # token 7, head 0
    out = codebook_attention(*place.put(query, key, value), heads=2, backend=place.backend)
    assert out[0, 7, :head_size].isnan().all()
    out[0, 7, :head_size] = 0
    assert out.isfinite().all()
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[0, 3] = True
    key[3], value[3] = float("nan"), float("inf")
    inputs = place.put(query.nan_to_num(), key[None], value[None])
    results = with_gradients(self_attention, inputs, heads=2, key_mask=mask.to(place.device), backend=place.backend)
    assert all(x.isfinite().all() for x in results)
    assert (results[2][0, 3] == 0).all() and (results[3][0, 3] == 0).all()


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_whole_tiles_of_masked_keys(place: Place, head_size: int) -> None:
    mask = torch.ones(2, 300, dtype=torch.bool)
    mask[0, 170:] = False
    mask[1, 5] = False
    inputs = list(torch.randn(3, 2, 300, head_size))
    assert_right(place, self_attention, reference.self_attention, inputs, heads=1, key_mask=mask.to(place.device))


@everywhere
@pytest.mark.parametrize("head_size", [4, 32])
def test_key_gradients_are_summed_over_the_batch_in_a_fixed_order(place: Place, head_size: int) -> None:
    inputs = place.put(*codebook_inputs(3, 400, 90, head_size))
    results = [with_gradients(codebook_attention, inputs, heads=1, backend=place.backend) for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*results, strict=True))
    repeated = [inputs[0], *(x.expand(3, -1, -1).contiguous() for x in inputs[1:])]
    each = with_gradients(self_attention, repeated, heads=1, backend=place.backend)
    for shared, own in zip(results[0][2:], each[2:], strict=True):
        torch.testing.assert_close(shared, own.sum(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
@pytest.mark.parametrize("head_size", [4, 32])
@pytest.mark.parametrize("batch", [1, 16])
def test_sums_of_chunks_take_a_tenth_of_the_memory_at_most(batch: int, head_size: int, dtype: torch.dtype) -> None:
    from cbtalk.kernels import codebook_attention as kernels

    for keys in (256, 512, 1024):
        query = torch.empty(batch, 1024, 8 * head_size, dtype=dtype, device="meta")
        key = torch.empty(1, keys, 8 * head_size, dtype=dtype, device="meta")
        block_k = kernels.key_tiling(dtype, head_size).block_k
        chunks = kernels.query_chunks(query, key, 8, block_k)
        statistics = torch.empty(2, 8, batch, 1024, device="meta")
        passed = 4 * (query.nbytes + key.nbytes) + statistics.nbytes
        assert chunks == 1 or 10 * 2 * chunks * 4 * key.numel() <= passed
        assert batch == 1 or keys // block_k * 8 * chunks >= 64  # programs


@everywhere
@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (2, 0)])
def test_no_queries(place: Place, batch: int, tokens: int) -> None:
    inputs = place.put(*codebook_inputs(batch, tokens, 6, 8))
    out, grad_query, grad_key, grad_value = with_gradients(codebook_attention, inputs, heads=2, backend=place.backend)
    assert out.shape == grad_query.shape == (batch, tokens, 8)
    assert (grad_key == 0).all() and (grad_value == 0).all()
    own = torch.randn(batch, 6, 8, device=place.device)
    assert self_attention(inputs[0], own, own, heads=2, backend=place.backend).shape == (batch, tokens, 8)


@everywhere
def test_opcheck(place: Place) -> None:
    suffix = "_triton" if place.backend == "triton" else ""
    forward = getattr(torch.ops.cbtalk, f"codebook_attention{suffix}")
    backward = getattr(torch.ops.cbtalk, f"codebook_attention_backward{suffix}")
    query, key, value, mask = place.put(
        torch.randn(2, 9, 24), *torch.randn(2, 2, 7, 8).unbind(), torch.rand(2, 7) < 0.5
    )
    for dtype in DTYPES:
        q, k, v = query.to(dtype)[..., 8:16], key.to(dtype), value.to(dtype)
        for keys, values, key_mask in ((k, v, mask), (k[:1], v[:1], None)):
            arguments = (q, keys, values, key_mask, 2)
            torch.library.opcheck(forward, (*arguments, keys is k))
            out, maximum, total = forward(*arguments, True)
            torch.library.opcheck(backward, (torch.randn_like(out), *arguments, out, maximum, total))


@everywhere
@pytest.mark.parametrize("head_size", [4, 16])
def test_the_log_sum_exp_is_that_of_the_scores(place: Place, head_size: int) -> None:
    query, key, value = place.put(*codebook_inputs(2, 30, 100, 2 * head_size))
    suffix = "_triton" if place.backend == "triton" else ""
    op = getattr(torch.ops.cbtalk, f"codebook_attention{suffix}")
    _, maximum, total = op(query, key[None], value[None], None, 2, True)
    q, k = (x.double().unflatten(-1, (2, head_size)) for x in (query, key))
    scores = torch.einsum("bthd,shd->hbts", q, k)
    torch.testing.assert_close(maximum.double(), scores.amax(-1), rtol=1e-5, atol=1e-5)
    sums = maximum.double() / head_size**0.5 + total.double().log()
    torch.testing.assert_close(sums, (scores / head_size**0.5).logsumexp(-1), rtol=1e-5, atol=1e-5)


@everywhere
def test_compiles_whole_at_any_batch(place: Place) -> None:
    def block(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        own = self_attention(query, query, query, heads=2, backend=place.backend)
        return codebook_attention(own, key, value, heads=2, backend=place.backend)

    compiled = torch.compile(block, fullgraph=True, dynamic=True, backend="aot_eager")
    for batch, tokens in ((2, 20), (3, 33)):
        inputs = place.put(*codebook_inputs(batch, tokens, 12, 8))
        for one, other in zip(with_gradients(compiled, inputs), with_gradients(block, inputs), strict=True):
            torch.testing.assert_close(one, other)


@everywhere
def test_what_a_backend_does_not_take_is_said(place: Place) -> None:
    inputs = place.put(*codebook_inputs(1, 3, 4, 264))
    with pytest.raises(BackendError, match="columns"):
        codebook_attention(*inputs, heads=2, backend=place.backend)
    with pytest.raises(BackendError, match="float32, float16 and bfloat16"):
        codebook_attention(*(x.double() for x in inputs), heads=66, backend=place.backend)
    with pytest.raises(ValueError, match="one dtype"):
        codebook_attention(inputs[0].half(), *inputs[1:], heads=66, backend=place.backend)


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90, 100])
def test_triton_compiles_ahead_without_spills(capability: int) -> None:
    builds = compile_in_process("codebook_attention", capability)
    assert len(builds) == 19
    for one in builds:
        assert one.stack == 0 and not one.missing and one.registers <= MOST_REGISTERS, one
