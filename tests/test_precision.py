import importlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pytest
import torch

from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS
from cbtalk.model.keypoints import KeypointDetector
from cbtalk.precision import dtype_of, float32_convolutions

CUDNN: Any = torch.backends.cudnn


@pytest.fixture(params=["ieee", "tf32", "mixed"])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """The settings that the process had for convolutions and recurrent networks."""
    kept = CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision
    found = ("tf32", "ieee") if request.param == "mixed" else (request.param, request.param)
    CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = found
    yield found
    CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision = kept


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_the_precision_is_set_and_given_back(precision: Literal["ieee", "tf32"], before: tuple[str, str]) -> None:
    with pytest.raises(KeyError), float32_convolutions(precision):
        assert CUDNN.conv.fp32_precision == precision
        assert CUDNN.allow_tf32 == (precision == "tf32")  # the older name of the same, which torch itself reads
        raise KeyError
    assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == before


def test_the_keypoint_detector_is_exact_whatever_is_set(before: tuple[str, str]) -> None:
    detector = KeypointDetector(PRESETS["mini"]).eval()
    seen = []
    detector.predictor.register_forward_pre_hook(lambda *_: seen.append(CUDNN.conv.fp32_precision))
    detector(torch.zeros(1, 3, 64, 64))
    assert seen == ["ieee"]
    assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == before


FILE = Path("no such file")
# Of each entry that runs a talker: its module, what it calls early on, and a call.
ENTRIES: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "render": ("render.video", "check_destination", lambda module: module.render_video(FILE, FILE, FILE)),
    "motion": ("render.video", "check_destination", lambda module: module.write_motion(FILE, FILE)),
    "the time that a batch should take": ("batch.estimate", "load", lambda module: module.frame_seconds("mini", "cpu")),
    "train": ("train.training", "joined", lambda module: module.train_talker(FILE)),
    "evaluate": ("evaluate.evaluator", "kept_warnings", lambda module: module.Evaluator.do(None, None, {})),
    "figures": ("figures.command", "load", lambda module: module.draw_figures(FILE, FILE, FILE)),
}


@pytest.mark.parametrize("entry", ENTRIES)
def test_convolutions_are_exact_in_all_that_runs_a_talker(
    entry: str, before: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module_name, early, call = ENTRIES[entry]
    module = importlib.import_module(f"cbtalk.{module_name}")
    seen = []

    def ends(*arguments: Any, **options: Any) -> None:
        seen.append(CUDNN.conv.fp32_precision)
        raise LookupError

    monkeypatch.setattr(module, early, ends)
    with suppress(Exception):
        call(module)
    assert seen == ["ieee"]
    assert (CUDNN.conv.fp32_precision, CUDNN.rnn.fp32_precision) == before


def test_the_keypoint_detector_is_compiled_whole() -> None:
    torch._dynamo.reset()
    detector = KeypointDetector(PRESETS["mini"]).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(detector, fullgraph=True, backend="eager")(image)
        torch.testing.assert_close(compiled.value, detector(image).value)


@pytest.mark.parametrize("amx", [False, True])
def test_auto_is_half_precision_only_where_it_was_measured_faster(amx: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    assert dtype_of("auto", "cpu") == (torch.bfloat16 if amx else torch.float32)
    assert dtype_of("auto", "cuda") == torch.float32
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert dtype_of("auto", "cpu") == torch.float32


def test_a_precision_that_the_gpu_lacks_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Old GPU")
    for there in (False, True):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, there=there: there)
        assert dtype_of("fp16", "cuda") == torch.float16 and dtype_of("bf16", "cpu") == torch.bfloat16
        if there:
            assert dtype_of("bf16", "cuda") == torch.bfloat16
        else:
            with pytest.raises(ConfigError, match="Old GPU has no bfloat16"):
                dtype_of("bf16", "cuda")
