from collections.abc import Iterator
from typing import Any, Literal

import pytest
import torch

from cbtalk.model.config import PRESETS
from cbtalk.model.keypoints import KeypointDetector
from cbtalk.precision import float32_convolutions

CUDNN: Any = torch.backends.cudnn


@pytest.fixture(params=["ieee", "tf32", "mixed"])
def before(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """What the process had set for convolutions and recurrent networks."""
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


def test_the_keypoint_detector_is_compiled_whole() -> None:
    torch._dynamo.reset()
    detector = KeypointDetector(PRESETS["mini"]).eval()
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        compiled = torch.compile(detector, fullgraph=True, backend="eager")(image)
        torch.testing.assert_close(compiled.value, detector(image).value)
