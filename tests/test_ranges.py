from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
import torch
from torch import Tensor, nn

from cbtalk import ranges


@ranges.ranged("twice")
def twice(x: Tensor) -> Tensor:
    """Its double."""
    return x * 2


class Layer(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        with ranges.range(f"layer_{1}"):
            return twice(x) + 1


def watched(function: nn.Module, x: Tensor) -> list[str]:
    seen: list[str] = []

    @contextmanager
    def sink(name: str) -> Iterator[None]:
        seen.append(f"<{name}")
        yield
        seen.append(f"{name}>")

    with ranges.watch(sink):
        function(x)
    function(x)  # watched no longer
    return seen


def test_ranges_nest() -> None:
    assert watched(Layer(), torch.ones(2)) == ["<layer_1", "<twice", "twice>", "layer_1>"]


@pytest.mark.parametrize("installed", [True, False])
def test_a_profiler_sees_the_names_with_and_without_nvtx(installed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not installed:
        monkeypatch.setattr(ranges, "nvtx", None)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        Layer()(torch.ones(2))
    assert {"layer_1", "twice"} <= {event.name for event in profile.events()}


def test_nvtx_gets_the_names(monkeypatch: pytest.MonkeyPatch) -> None:
    nvtx = pytest.importorskip("nvtx")
    names: list[str] = []

    def annotate(name: str, domain: str) -> nullcontext[None]:
        names.append(name)
        return nullcontext()

    monkeypatch.setattr(nvtx, "annotate", annotate)
    ranges._nvtx.cache_clear()
    Layer()(torch.ones(2))
    assert names == ["layer_1", "twice"]


def test_an_error_passes_and_ends_the_range() -> None:
    with pytest.raises(ZeroDivisionError), ranges.range("fails"):
        raise ZeroDivisionError
    assert watched(Layer(), torch.ones(2))[0] == "<layer_1"


def test_compiled_and_exported_code_has_no_ranges() -> None:
    x = torch.ones(2)
    compiled = torch.compile(Layer(), fullgraph=True, backend="eager")
    assert torch.equal(compiled(x), x * 2 + 1)
    for strict in (True, False):
        exported = torch.export.export(Layer(), (x,), strict=strict)
        names = [str(node.target) for node in exported.graph.nodes if node.op == "call_function"]
        assert names == ["aten.mul.Tensor", "aten.add.Tensor"]


def test_a_decorated_function_stays_itself() -> None:
    assert twice.__name__ == "twice" and twice.__doc__ == "Its double."
