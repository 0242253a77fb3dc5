"""The whole model: seconds a frame against itself on reference ops, and stage by stage."""

from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from bench import work
from bench.case import Thunk
from bench.ceilings import Ceilings
from bench.media import decode_and_encode
from bench.stages import Stopwatch, stage_operations, stage_peaks
from bench.timing import Timing, interleave
from cbtalk.model.checkpoint import load
from cbtalk.model.talker import SourceState, Talker
from cbtalk.ops.backends import use_backend

BATCHES = {"cpu": (1, 4), "cuda": (1, 4, 16)}
BASELINE = "reference ops, batch 1, source encoded for every frame"

Record = dict[str, Any]


@dataclass(frozen=True)
class Scene:
    """An untrained model and random images."""

    talker: Talker
    source: Tensor  # (1, 3, H, W)
    driving: Tensor  # (B, 3, H, W)
    state: SourceState
    device: str
    preset: str

    def animate(self, batch: int) -> Thunk:
        """The source animated by so many driving images."""
        return lambda: self.talker.animate(self.state, self.driving[:batch])

    def baseline(self) -> Tensor:
        """BASELINE."""
        with use_backend("reference"):
            return self.talker.animate(self.talker.encode_source(self.source), self.driving[:1])


@torch.inference_mode()
def make_scene(preset: str, device: str, dtype: torch.dtype = torch.float32) -> Scene:
    """Of a preset; the weights and images are the same in every run."""
    torch.manual_seed(0)
    talker = load(preset, pretrained=False, device=device, dtype=dtype).requires_grad_(False)
    source, *driving = (torch.rand(1 + max(BATCHES[device]), 3, talker.image_size, talker.image_size) * 2 - 1).split(1)
    source = source.to(device)
    return Scene(talker, source, torch.cat(driving).to(device), talker.encode_source(source), device, preset)


@torch.inference_mode()
def measure_model(scene: Scene, seconds: float) -> Record:
    """Times are seconds a frame; a stage's operations are one frame's."""
    device, batches = scene.device, BATCHES[scene.device]
    expected = scene.baseline()
    difference = (scene.animate(1)() - expected).abs().amax() / expected.abs().amax()  # type: ignore[operator]
    operations = stage_operations(scene.animate(1))
    peaks = {batch: stage_peaks(scene.animate(batch), device) for batch in batches}
    watches = {batch: Stopwatch(_waited(scene.animate(batch), device), device) for batch in batches}
    functions: dict[str, Thunk] = {_name(batch): watches[batch] for batch in batches}
    functions[BASELINE] = _waited(scene.baseline, device)
    times = interleave(functions, seconds=seconds, min_rounds=4, warm_up=1)
    stages = [
        {
            "stage": name,
            "batch": batch,
            "seconds": taken / batch,
            "operations": operations[name],
            "peak": peaks[batch][name],
        }
        for batch in batches
        for name, taken in watches[batch].medians(times[BASELINE].rounds).items()
    ]
    return {
        "preset": scene.preset,
        "largest difference of the images": difference.item(),
        "times": {name: asdict(timing) for name, timing in _a_frame(times, batches).items()},
        "stages": stages,
        "once a source": _once(Stopwatch(lambda: scene.talker.encode_source(scene.source), device)),
        "media": decode_and_encode(scene.talker.image_size),
    }


def add_shares(record: Record, device: str, ceilings: Ceilings) -> None:
    """The share of the machine's float32 matrix rate that each stage reaches."""
    rate, products = work.product_rate(torch.float32, device)
    for row in record["stages"]:
        row["share"] = row["operations"] / row["seconds"] / (getattr(ceilings, rate) / products)


def _name(batch: int) -> str:
    return f"cbtalk, batch {batch}"


def _waited(thunk: Thunk, device: str) -> Thunk:
    """The thunk, and on a GPU the wait for what it has queued."""
    if device == "cpu":
        return thunk

    def wait() -> None:
        thunk()
        torch.cuda.synchronize()

    return wait


def _once(encode_source: Stopwatch, rounds: int = 3) -> dict[str, float]:
    for _ in range(rounds + 1):
        encode_source()
    return encode_source.medians(rounds)


def _a_frame(times: dict[str, Timing], batches: tuple[int, ...]) -> dict[str, Timing]:
    frames = {_name(batch): batch for batch in batches}
    return {
        name: replace(t, median=t.median / count, low=t.low / count, high=t.high / count)
        for name, t in times.items()
        for count in (frames.get(name, 1),)
    }
