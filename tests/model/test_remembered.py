from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cbtalk.model.transformer import TransformerLayer, project_codes


class Layer(nn.Module):
    """A layer of the model's transformer with its codebook: all that is remembered there is, in one module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([TransformerLayer(16, 2)])
        self.codebook = nn.Parameter(torch.randn(8, 16))

    def forward(self, tokens: Tensor) -> Tensor:
        (codes,) = project_codes(self.layers, self.codebook)
        return self.layers[0](tokens, torch.zeros_like(tokens[0]), codes, 4)


TOKENS = torch.randn(2, 16, 16)


@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "used before"])
@pytest.mark.parametrize("how", ["export", "compile"])
def test_the_model_is_traced_whole(how: str, warm: bool) -> None:
    layer = Layer().eval()
    with torch.no_grad():
        expected = layer(TOKENS) if warm else None
        traced: Any
        if how == "export":
            traced = torch.export.export(layer, (TOKENS,)).module()
        else:
            torch._dynamo.reset()
            traced = torch.compile(layer, fullgraph=True, backend="aot_eager")
        actual = traced(TOKENS)
        torch.testing.assert_close(actual, layer(TOKENS) if expected is None else expected)


@torch.no_grad()
@pytest.mark.parametrize("warm", [False, True], ids=["fresh", "used before"])
def test_a_fake_pass_neither_reads_nor_leaves_what_is_remembered(warm: bool) -> None:
    layer = Layer().eval()
    if warm:
        layer(TOKENS)
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        assert layer(mode.from_tensor(TOKENS)).shape == TOKENS.shape
    assert type(layer(TOKENS)) is Tensor
