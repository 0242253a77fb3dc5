import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cbtalk.nn import CodebookAttention, SelfAttention


def expected(query: Tensor, key: Tensor, value: Tensor, heads: int, mask: Tensor | None = None) -> Tensor:
    """torch's own attention of projected (B, T, D)."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    return F.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2).flatten(2)


def test_attention_to_a_codebook_of_another_width() -> None:
    attend = CodebookAttention(16, heads=4, code_dim=10)
    tokens, position, codebook = torch.randn(2, 7, 16), torch.randn(7, 16), torch.randn(20, 10)
    key, value = (x.expand(2, -1, -1) for x in attend.project(codebook))
    out = attend.out(expected(attend.query(tokens + position), key, value, heads=4))
    torch.testing.assert_close(attend(tokens, codebook, position), out)
    torch.testing.assert_close(attend(tokens, codebook), attend(tokens, codebook, torch.zeros(7, 16)))


def test_codes_that_were_projected_before_are_not_projected_again() -> None:
    attend = CodebookAttention(16, heads=4).eval()
    tokens, codebook = torch.randn(2, 7, 16), torch.randn(20, 16)
    with torch.no_grad():
        out, codes = attend(tokens, codebook), attend.project(codebook)
        nn.init.zeros_(attend.key.weight)
        torch.testing.assert_close(attend(tokens, codes), out)


def test_attention_among_tokens() -> None:
    attend = SelfAttention(16, heads=2)
    tokens, position, ignored = torch.randn(2, 7, 16), torch.randn(2, 7, 16), torch.rand(2, 7) < 0.3
    query, key = attend.query_key(tokens + position).chunk(2, -1)
    out = attend.out(expected(query, key, attend.value(tokens), 2, ~ignored[:, None, None]))
    torch.testing.assert_close(attend(tokens, position, ignored), out)


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_everything_learns_compiled_and_under_autocast(backend: str) -> None:
    torch.compiler.reset()
    model = nn.ModuleList([CodebookAttention(16, 4, backend=backend), SelfAttention(16, 4, backend=backend)])
    codebook = nn.Parameter(torch.randn(20, 16))

    def run(tokens: Tensor) -> Tensor:
        to_codes, among = model
        return among(to_codes(tokens, codebook))

    tokens = torch.randn(2, 7, 16)
    out = run(tokens)
    out.square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in [codebook, *model.parameters()] if p.dim() > 1)
    torch.testing.assert_close(torch.compile(run, fullgraph=True, backend="aot_eager")(tokens), out)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = run(tokens)
    assert mixed.dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), out, rtol=0.1, atol=0.02)
    torch.testing.assert_close(copy.deepcopy(model).state_dict(), model.state_dict())


@pytest.mark.parametrize("make", [CodebookAttention, SelfAttention])
def test_heads_that_do_not_divide_the_columns_are_refused(make: type[nn.Module]) -> None:
    with pytest.raises(ValueError, match="16 columns do not divide into 3 heads"):
        make(16, 3)
