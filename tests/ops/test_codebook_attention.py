import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cbtalk.ops import codebook_attention, self_attention
from cbtalk.reference import codebook_attention as reference
from tests.helpers.checks import assert_error_budget, assert_op_right, with_gradients
from tests.helpers.cpp import needs_cpp


def plain_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None = None) -> Tensor:
    """The formula written out, in the dtype of its arguments; key and value (B, S, heads * d)."""
    q, k, v = (x.unflatten(-1, (heads, -1)) for x in (query, key, value))
    scores = torch.einsum("bthd,bshd->bhts", q, k) / q.shape[-1] ** 0.5
    if key_mask is not None:
        masked = key_mask & ~key_mask.all(1, keepdim=True)
        scores = scores.masked_fill(masked[:, None, None, :], float("-inf"))
    return torch.einsum("bhts,bshd->bthd", scores.softmax(-1), v).flatten(2)


def codebook_inputs(batch: int, tokens: int, keys: int, width: int) -> list[Tensor]:
    return [torch.randn(batch, tokens, width), torch.randn(keys, width), torch.randn(keys, width)]


def test_the_reference_is_the_formula() -> None:
    query, key, value = (x.double() for x in codebook_inputs(3, 10, 7, 12))
    shared = plain_attention(query, key.expand(3, -1, -1), value.expand(3, -1, -1), heads=3)
    torch.testing.assert_close(reference.codebook_attention(query, key, value, heads=3), shared)
    keys, values = torch.randn(2, 3, 7, 12, dtype=torch.float64)
    mask = torch.rand(3, 7) < 0.5
    mask[1] = True
    own = plain_attention(query, keys, values, heads=3, key_mask=mask)
    torch.testing.assert_close(reference.self_attention(query, keys, values, heads=3, key_mask=mask), own)


@pytest.mark.parametrize("head_size", [4, 5, 8, 16, 24, 32, 64])
def test_codebook_attention_within_the_error_budget(level: str, head_size: int) -> None:
    # Tokens that fill no tile, keys that fill no panel and more than one block; enough numbers for a steady maximum.
    heads = max(2, 64 // head_size)
    inputs = codebook_inputs(2, 211, 131, heads * head_size)
    assert_op_right(codebook_attention, reference.codebook_attention, inputs, heads=heads)


@pytest.mark.parametrize("head_size", [4, 32])
def test_self_attention_within_the_error_budget(level: str, head_size: int) -> None:
    heads = 64 // head_size
    query, key, value = torch.randn(3, 4, 150, 64)
    mask = torch.rand(4, 150) < torch.tensor([[0.0], [0.3], [0.99], [1.0]])
    mask[2, 0] = False
    for key_mask in (None, mask):
        assert_op_right(self_attention, reference.self_attention, [query, key, value], heads=heads, key_mask=key_mask)


@needs_cpp
@pytest.mark.parametrize("keys", [1, 256, 512, 768, 1024])
def test_a_prefix_of_a_projected_codebook(keys: int) -> None:
    query = torch.randn(2, 65, 32)
    projected = torch.randn(1024, 64)
    key, value = projected[:keys].chunk(2, dim=-1)
    assert key.stride() == (64, 1)
    assert_op_right(codebook_attention, reference.codebook_attention, [query, key, value], heads=8)


@needs_cpp
def test_queries_may_be_slices_of_a_projection() -> None:
    qkv = torch.randn(2, 70, 3 * 32)

    def attend(x: Tensor, backend: str) -> Tensor:
        query, key, value = x.chunk(3, dim=-1)
        return self_attention(query, key, value, heads=4, backend=backend)

    def plain(x: Tensor) -> Tensor:
        query, key, value = x.chunk(3, dim=-1)
        return reference.self_attention(query, key, value, heads=4)

    assert_op_right(attend, plain, [qkv])
    turned = torch.randn(70, 2, 32).transpose(0, 1)  # batch stride below the row stride
    every_other = torch.randn(2, 70, 64)[..., ::2]  # columns apart
    for query in (turned, every_other):
        inputs = [query, torch.randn(9, 32), torch.randn(9, 32)]
        assert_op_right(codebook_attention, reference.codebook_attention, inputs, heads=4)


def test_logits_of_ten_thousand_neither_overflow_nor_smear(level: str) -> None:
    query, key, value = codebook_inputs(1, 40, 300, 8)
    query, key = 100 * query, 100 * key
    out = codebook_attention(query, key, value, heads=2, backend="cpp")
    exact = reference.codebook_attention(query.double(), key.double(), value.double(), heads=2)
    assert_error_budget(out, reference.codebook_attention(query, key, value, heads=2), exact)
    # One key 10^4 above the others takes all; far below them, nothing.
    key = torch.zeros(200, 4)
    for logit, expected in ((1e4, value[130, :4]), (-1e4, None)):
        key[130] = logit
        out = codebook_attention(torch.full((1, 3, 4), 0.5), key, value[:200, :4], heads=1, backend="cpp")
        others = torch.cat([value[:130, :4], value[131:200, :4]]).mean(0) if expected is None else expected
        torch.testing.assert_close(out, others.expand(1, 3, 4), rtol=1e-5, atol=1e-6)


def test_the_maximum_may_rise_in_every_block(level: str) -> None:
    key = torch.linspace(-300, 300, 400)[:, None].expand(-1, 4).contiguous()
    inputs = [torch.randn(1, 30, 4), key, torch.randn(400, 4)]
    assert_op_right(codebook_attention, reference.codebook_attention, inputs, heads=1)


def test_equal_keys_give_the_mean_of_the_values(level: str) -> None:
    value = torch.randn(77, 16)
    out = codebook_attention(torch.randn(2, 5, 16), torch.ones(77, 16), value, heads=4, backend="cpp")
    torch.testing.assert_close(out, value.mean(0).expand(2, 5, 16), rtol=1e-5, atol=1e-6)


def test_one_bad_query_or_key_stays_where_it_is(level: str) -> None:
    query, key, value = codebook_inputs(1, 50, 20, 8)
    query[0, 7, 0] = float("nan")  # token 7, head 0
    out = codebook_attention(query, key, value, heads=2, backend="cpp")
    assert out[0, 7, :4].isnan().all()
    out[0, 7, :4] = 0
    assert out.isfinite().all()
    mask = torch.zeros(1, 20, dtype=torch.bool)
    mask[0, 3] = True
    key[3], value[3] = float("nan"), float("nan")
    query = query.nan_to_num()
    assert self_attention(query, key[None], value[None], heads=2, key_mask=mask, backend="cpp").isfinite().all()


@needs_cpp
def test_masked_keys_change_nothing_and_get_no_gradient() -> None:
    query, key, value = torch.randn(3, 2, 66, 16)
    mask = torch.zeros(2, 66, dtype=torch.bool)
    mask[0, 5:40] = True
    mask[1] = True
    inputs = [query, key, value]
    out, _, grad_key, grad_value = with_gradients(self_attention, inputs, heads=2, key_mask=mask, backend="cpp")
    kept = ~mask[0]
    torch.testing.assert_close(out[:1], self_attention(query[:1], key[:1, kept], value[:1, kept], heads=2))
    torch.testing.assert_close(out[1:], self_attention(query[1:], key[1:], value[1:], heads=2))
    assert (grad_key[0, mask[0]] == 0).all() and (grad_value[0, mask[0]] == 0).all()
    assert (grad_value[1] != 0).all()


@needs_cpp
def test_codebook_gradients_are_the_sum_over_the_batch() -> None:
    inputs = codebook_inputs(5, 400, 90, 8)
    _, _, grad_key, grad_value = with_gradients(codebook_attention, inputs, heads=2, backend="cpp")
    repeated = [inputs[0], inputs[1].expand(5, -1, -1).contiguous(), inputs[2].expand(5, -1, -1).contiguous()]
    _, _, each_key, each_value = with_gradients(self_attention, repeated, heads=2, backend="cpp")
    torch.testing.assert_close(grad_key, each_key.sum(0), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(grad_value, each_value.sum(0), rtol=1e-4, atol=1e-5)


@needs_cpp
def test_no_bit_depends_on_the_number_of_threads() -> None:
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            torch.manual_seed(1)
            inputs = codebook_inputs(3, 700, 100, 64)
            results.append(with_gradients(codebook_attention, inputs, heads=4, backend="cpp"))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))


@needs_cpp
@pytest.mark.parametrize(("batch", "tokens"), [(0, 5), (2, 0), (0, 0)])
def test_no_queries(batch: int, tokens: int) -> None:
    inputs = codebook_inputs(batch, tokens, 6, 8)
    out, grad_query, grad_key, _ = with_gradients(codebook_attention, inputs, heads=2, backend="cpp")
    assert out.shape == grad_query.shape == (batch, tokens, 8)
    assert torch.equal(grad_key, torch.zeros(6, 8))
    own = torch.randn(batch, 6, 8)
    assert self_attention(inputs[0], own, own, heads=2, backend="cpp").shape == (batch, tokens, 8)


@needs_cpp
@settings(deadline=None, max_examples=30)
@given(
    batch=st.integers(1, 3),
    tokens=st.integers(1, 200),
    keys=st.integers(1, 140),
    heads=st.integers(1, 3),
    head_size=st.integers(1, 40),
    share=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_sizes(batch: int, tokens: int, keys: int, heads: int, head_size: int, share: float) -> None:
    query = torch.randn(batch, tokens, heads * head_size)
    key, value = torch.randn(2, batch, keys, heads * head_size)
    mask = torch.rand(batch, keys) < share
    arguments = {"heads": heads, "key_mask": mask}
    actual = with_gradients(self_attention, [query, key, value], backend="cpp", **arguments)
    exact = with_gradients(plain_attention, [x.double() for x in (query, key, value)], **arguments)
    for one, truth in zip(actual, exact, strict=True):
        torch.testing.assert_close(one.double(), truth, rtol=1e-4, atol=1e-4)


@needs_cpp
def test_the_log_sum_exp_is_that_of_the_scores() -> None:
    query, key, value = codebook_inputs(2, 30, 100, 8)
    _, maximum, total = torch.ops.cbtalk.codebook_attention(query, key[None], value[None], None, 2, True)
    scores = torch.einsum("bthd,shd->hbts", query.unflatten(-1, (2, 4)), key.unflatten(-1, (2, 4)))
    torch.testing.assert_close(maximum, scores.amax(-1))
    torch.testing.assert_close(maximum / 2 + total.log(), (scores / 2).logsumexp(-1), rtol=1e-6, atol=1e-5)


def test_gradcheck() -> None:
    query, key, value = (x.double().requires_grad_() for x in codebook_inputs(2, 3, 4, 4))
    assert torch.autograd.gradcheck(lambda *x: codebook_attention(*x, heads=2), (query, key, value))
    own = torch.randn(2, 4, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[False, True, True, False], [True, True, True, True]])
    assert torch.autograd.gradcheck(lambda q, k: self_attention(q, k, k, heads=2, key_mask=mask), (query, own))


@needs_cpp
def test_bfloat16_errs_no_more_than_the_reference_and_stays_bfloat16() -> None:
    torch.manual_seed(0)
    query, key, value = (x.bfloat16() for x in codebook_inputs(2, 40, 50, 32))
    assert_op_right(codebook_attention, reference.codebook_attention, [query, key, value], heads=8)
    tokens = [torch.randn(2, 40, 32).bfloat16() for _ in range(3)]
    mask = torch.arange(40).expand(2, -1) > 30
    assert_op_right(self_attention, reference.self_attention, tokens, heads=8, key_mask=mask)


@pytest.mark.parametrize(
    ("shapes", "heads"),
    [
        (((2, 5, 8), (6, 8), (6, 8)), 3),  # heads do not divide
        (((2, 5, 8), (6, 8), (7, 8)), 2),  # value and key differ
        (((2, 5, 8), (6, 12), (6, 12)), 2),  # widths differ
        (((2, 5, 8), (0, 8), (0, 8)), 2),  # no key
        (((2, 5, 8), (2, 6, 8), (2, 6, 8)), 2),  # a batch of codebooks
        (((5, 8), (6, 8), (6, 8)), 2),  # no batch
        (((2, 5, 8), (6, 8), (6, 8)), 0),  # no heads
    ],
)
def test_shapes_that_do_not_fit(shapes: tuple[tuple[int, ...], ...], heads: int) -> None:
    with pytest.raises(ValueError):
        codebook_attention(*(torch.zeros(shape) for shape in shapes), heads=heads)


def test_masks_and_batches_that_do_not_fit() -> None:
    query = torch.zeros(2, 5, 8)
    for mask in (torch.zeros(2, 4, dtype=torch.bool), torch.zeros(2, 5)):
        with pytest.raises(ValueError, match="key_mask"):
            self_attention(query, query, query, heads=2, key_mask=mask)
    with pytest.raises(ValueError, match="batch"):
        self_attention(query, query[:1], query[:1], heads=2)
