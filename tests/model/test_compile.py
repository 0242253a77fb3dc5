"""A whole talker under torch.compile and torch.export."""

from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import Tensor, nn

from cbtalk.model.talker import Talker
from tests.helpers.talkers import MakeTalker
from tests.helpers.tiers import slow
from tests.model.test_talker import assert_same, images

MODES = pytest.mark.parametrize("mode", [torch.inference_mode, *slow(torch.no_grad)])


class Whole(nn.Module):
    """A source encoded and animated."""

    def __init__(self, talker: Talker) -> None:
        super().__init__()
        self.talker = talker

    def forward(self, source: Tensor, driving: Tensor) -> Tensor:
        return self.talker.animate(self.talker.encode_source(source), driving)


@pytest.fixture
def made(tiny: MakeTalker) -> tuple[Whole, Tensor, Tensor]:
    talker = tiny()
    return Whole(talker), images(1, talker.image_size), images(2, talker.image_size)


@MODES
def test_a_talker_is_one_graph(
    made: tuple[Whole, Tensor, Tensor], mode: Callable[[], AbstractContextManager[None]]
) -> None:
    whole, source, driving = made
    torch._dynamo.reset()
    compiled = torch.compile(whole, fullgraph=True, backend="eager")
    with mode():
        expected = whole(source, driving)
        assert torch.equal(compiled(source, driving), expected)
        assert torch.equal(whole(source, driving), expected)  # what is remembered stays right beside it


@MODES
def test_an_exported_talker_gives_the_same_bits(
    made: tuple[Whole, Tensor, Tensor], mode: Callable[[], AbstractContextManager[None]]
) -> None:
    whole, source, driving = made
    with mode():
        module = torch.export.export(whole, (source, driving)).module()
        for image in (source, 0.5 * source):
            assert torch.equal(module(image, driving), whole(image, driving))


@pytest.mark.slow
def test_the_inductor_makes_the_same_image(made: tuple[Whole, Tensor, Tensor]) -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        pytest.skip("no C++ compiler for the inductor")
    whole, source, driving = made
    torch._dynamo.reset()
    with torch.no_grad():
        assert_same(torch.compile(whole, fullgraph=True)(source, driving), whole(source, driving))
