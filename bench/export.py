"""The speed of an exported talker against cbtalk's own, as a Markdown table.

python -m bench.export [--weights mini] [--batch 1] [--seconds 60] [--threads 2] [--compile]

A frame is `animate` for a driving image, keypoints and relative motion with it; the source is encoded before. Every
way takes its turn in each round. --compile adds torch.compile of cbtalk's own, which takes minutes to begin.
"""

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from bench import machine
from bench.case import Thunk
from bench.timing import interleave
from cbtalk.allocator import keep_freed_memory
from cbtalk.export import write_onnx, write_torch
from cbtalk.model.checkpoint import load
from cbtalk.model.talker import Talker

OWN = "`Talker.animate`"


def ways(talker: Talker, folder: Path, batch: int, threads: int, *, compiled: bool) -> dict[str, Thunk]:
    """Functions that animate a batch, by what the table calls them; each returns what it made."""
    size = talker.image_size
    draw = torch.Generator().manual_seed(0)
    source, driving = (torch.rand(count, 3, size, size, generator=draw) * 2 - 1 for count in (1, batch))
    state, reference = talker.encode_source(source), talker.keypoints(driving[:1])
    found: dict[str, Thunk] = {OWN: lambda: talker.animate(state, driving, reference=reference)}
    found["animate.onnx in onnxruntime"] = _onnx(folder, source, driving, threads)
    found["animate.pt2 in torch"] = _torch(folder, source, driving)
    if compiled:
        animate = torch.compile(talker.animate, fullgraph=True)
        found["torch.compile of `Talker.animate`"] = lambda: animate(state, driving, reference=reference)
    return found


def _onnx(folder: Path, source: Tensor, driving: Tensor, threads: int) -> Thunk:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    encode, animate = (
        onnxruntime.InferenceSession(folder / f"{name}.onnx", options, providers=["CPUExecutionProvider"])
        for name in ("encode", "animate")
    )
    state = encode.run(None, {"source": source.numpy()})
    reference = encode.run(None, {"source": driving[:1].numpy()})[:2]
    names = [given.name for given in animate.get_inputs()]
    inputs: dict[str, np.ndarray] = dict(zip(names, [driving.numpy(), *reference, *state], strict=True))
    return lambda: animate.run(None, inputs)


def _torch(folder: Path, source: Tensor, driving: Tensor) -> Thunk:
    encode, animate = (torch.export.load(folder / f"{name}.pt2").module() for name in ("encode", "animate"))
    state, reference = encode(source), encode(driving[:1])[:2]
    return lambda: animate(driving, *reference, *state)


@torch.no_grad()
def table(weights: str, batch: int, seconds: float, threads: int, *, compiled: bool) -> Iterator[str]:
    """The lines of the table, slowest last."""
    talker = load(weights)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_onnx(talker, folder)
        write_torch(talker, folder)
        timings = interleave(ways(talker, folder, batch, threads, compiled=compiled), seconds=seconds)
    own = timings[OWN].median
    facts = machine.header()
    yield f"`{weights}`, batch {batch}, {facts['cpu']}, {threads} threads, torch {facts['torch']}, {facts['month']}"
    yield ""
    yield f"| way | ms a frame | times that of {OWN} |"
    yield "| --- | --- | --- |"
    for way, timing in sorted(timings.items(), key=lambda item: item[1].median):
        yield f"| {way} | {1000 * timing.median / batch:.1f} | {timing.median / own:.2f} |"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="mini")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    lines = table(arguments.weights, arguments.batch, arguments.seconds, arguments.threads, compiled=arguments.compile)
    print(*lines, sep="\n")


if __name__ == "__main__":
    main()
