"""A GPU's benchmark times nothing besides the kernel: shown on the CPU by what torch dispatches."""

import subprocess
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from bench import ceilings
from bench.case import Case, Setting
from bench.cases import cases
from bench.gpu import winners
from bench.gpu_timing import flush
from cbtalk.ops.examples import ON_GPU

GRADIENTS = [
    case
    for case in cases(Setting("cuda", torch.float32), [example.name for example in ON_GPU], direction="bwd", peers=[])
    if "rough" not in case.shape
]
# Calls that making a gradient, or laying one out anew, would dispatch.
NOT_THE_OP = {"aten.linspace", "aten.sin", "aten.clone", "aten.copy_", "aten._to_copy", "aten.ones_like"}


class Dispatched(TorchDispatchMode):
    """The names of the operations that torch dispatches, backward passes too, but for those that give one number."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor) or result.dim() > 0:
            self.names.append(str(function).rpartition(".")[0])
        return result


@pytest.mark.parametrize("case", GRADIENTS, ids=lambda case: case.name)
def test_the_gradient_of_the_output_is_not_made_in_what_is_timed(case: Case) -> None:
    inputs = case.make_inputs(torch.Generator().manual_seed(0))
    if inputs[0].numel() > 1 << 21:
        pytest.skip("a large image, the same code as a small one")
    thunk = case.ours(*inputs)
    with Dispatched() as dispatched:
        thunk()
    assert any("backward" in name for name in dispatched.names), dispatched.names
    assert NOT_THE_OP.isdisjoint(dispatched.names), dispatched.names


def test_the_cache_is_flushed_by_reading_alone() -> None:
    other = torch.zeros(1 << 10)
    with Dispatched() as dispatched:
        flush(other)
    assert dispatched.names == [] and other._version == 0  # a sum gives one number


def _no_nvidia_smi(*arguments: Any, **options: Any) -> Any:
    raise FileNotFoundError("nvidia-smi")


def _refused(*arguments: Any, **options: Any) -> Any:
    raise subprocess.CalledProcessError(9, "nvidia-smi")


@pytest.mark.parametrize("answer", [_no_nvidia_smi, _refused, lambda *_, **__: SimpleNamespace(stdout="[N/A]\n")])
@pytest.mark.parametrize(("properties", "expected"), [({"clock_rate": 1_980_000}, 1.98e9), ({}, float("inf"))])
def test_a_bench_without_nvidia_smi_goes_on(
    answer: Any, properties: dict[str, int], expected: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subprocess, "run", answer)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(**properties))
    assert ceilings.highest_clock() == expected


def test_the_faster_backend_is_named_for_each_case_and_dtype() -> None:
    def record(dtype: str, side: str, median: float | None) -> dict[str, Any]:
        timed = {"graph": {"median": median}} if median else {"off": "no such backend"}
        return {"case": "flow_warp", "dtype": dtype, "side": side, **timed}

    records = [record("float32", "cuda", 2e-6), record("float32", "triton", 3e-6), record("float32", "a peer", 1e-6)]
    records += [record("bfloat16", "cuda", None), record("bfloat16", "triton", 1e-6)]
    float32, bfloat16 = winners(records)
    assert "float32  cuda wins: triton takes 1.50 of its time" in float32
    assert "bfloat16 triton wins: no other was timed" in bfloat16


@pytest.mark.parametrize(("rough", "least", "most"), [(False, 1.0, 1.4), (True, 2.5, 4.0)])
def test_a_tile_of_the_smooth_flow_reads_few_pixels_of_the_feature(rough: bool, least: float, most: float) -> None:
    """For each of its 8 x 8 pixels, about one: what a cache or a sum in registers can rest on."""
    found = cases(Setting("cuda"), ["flow_warp"], direction="fwd")
    case = next(case for case in found if "channels_last" in case.shape and ("rough" in case.shape) == rough)
    feature, flow, _ = case.make_inputs(torch.Generator().manual_seed(0))
    side = feature.shape[-1]
    resized = F.interpolate(flow.permute(0, 3, 1, 2), size=(side, side), mode="bilinear", align_corners=True)[0]
    x, y = ((resized + 1) * (0.5 * (side - 1))).floor().long()
    taps = torch.stack([(y + down) * side + x + right for down in (0, 1) for right in (0, 1)])
    taps[:, (x < 0) | (y < 0) | (x > side - 2) | (y > side - 2)] = -1
    tiles = taps.unfold(1, 8, 8).unfold(2, 8, 8).permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
    read = sum(len(tile[tile >= 0].unique()) for tile in tiles) / side**2
    assert least < read < most


def test_the_smooth_flow_comes_first_and_the_rough_one_is_beside_it() -> None:
    found = cases(Setting("cuda"), ["flow_warp"])
    assert [case.direction for case in found if "rough" in case.shape] == ["fwd", "bwd"]
    assert "rough" not in found[0].shape
    assert not any("rough" in case.shape for case in cases(Setting("cpu"), ["flow_warp"]))
