"""The whole model against itself on reference ops: seconds a frame, and whether the picture is the same."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from bench.case import Thunk
from bench.timing import Timing, interleave
from cbtalk.model.checkpoint import load
from cbtalk.ops.backends import use_backend

BATCH = 4
BASELINE = "reference ops, batch 1, source encoded for every frame"


@torch.inference_mode()
def measure_model(preset: str, seconds: float) -> dict[str, Any]:
    """An untrained model of the preset on random pictures; times are seconds a frame."""
    torch.manual_seed(0)
    talker = load(preset, pretrained=False)
    source, *driving = (torch.rand(1 + BATCH, 3, talker.image_size, talker.image_size) * 2 - 1).split(1)
    state = talker.encode_source(source)
    batch = torch.cat(driving)

    def baseline() -> Tensor:
        with use_backend("reference"):
            return talker.animate(talker.encode_source(source), driving[0])

    functions: dict[str, Thunk] = {
        "cbtalk, batch 1": lambda: talker.animate(state, driving[0]),
        f"cbtalk, batch {BATCH}": lambda: talker.animate(state, batch),
        BASELINE: baseline,
    }
    expected = baseline()
    difference = (talker.animate(state, driving[0]) - expected).abs().amax() / expected.abs().amax()
    times = interleave(functions, seconds=seconds)
    times[f"cbtalk, batch {BATCH}"] = _a_frame(times[f"cbtalk, batch {BATCH}"])
    return {
        "preset": preset,
        "largest difference of the pictures": difference.item(),
        "times": {name: asdict(timing) for name, timing in times.items()},
    }


def _a_frame(timing: Timing) -> Timing:
    return Timing(timing.median / BATCH, timing.low / BATCH, timing.high / BATCH, timing.rounds)


def model_table(record: dict[str, Any]) -> Iterable[str]:
    """The record in lines: seconds a frame, and the share of the baseline's time."""
    yield f"model {record['preset']}, seconds a frame"
    baseline = record["times"][BASELINE]["median"]
    for name, timing in record["times"].items():
        yield (
            f"    {name:56} {timing['median']:8.4f} s  ({timing['low']:.4f} .. {timing['high']:.4f})"
            f"  {timing['median'] / baseline:5.2f} of the baseline"
        )
    share = record["largest difference of the pictures"]
    yield f"    largest difference of a picture from the baseline's: {share:.1e} of its largest value"
