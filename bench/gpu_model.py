"""The whole model on a GPU: frames a second by batch, precision and way of launching; launches and waits of a batch.

python -m bench.gpu_model [--preset paper] [--json FILE] [--seconds 60]

It imports neither decoders nor plots, which a machine lent for its GPU may lack.
"""

import argparse
import json
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile

from bench.case import Thunk
from bench.gpu_timing import measure, measure_eager
from bench.machine import header
from cbtalk.atomic import write_text
from cbtalk.model.checkpoint import load
from cbtalk.model.config import PRESETS
from cbtalk.model.images import to_bytes, to_images
from cbtalk.precision import float32_convolutions

BATCHES = (1, 4, 16)
REPLAYS = 11

Record = dict[str, Any]


class Mode(NamedTuple):
    """The dtype of the weights, and how convolutions of float32 are computed."""

    name: str
    dtype: torch.dtype
    convolutions: Literal["ieee", "tf32"]


# float32 without TF32 is what `cbtalk render` takes.
MODES = (
    Mode("float32", torch.float32, "ieee"),
    Mode("float32, TF32 in convolutions", torch.float32, "tf32"),
    Mode("bfloat16", torch.bfloat16, "ieee"),
)


def batch_of(preset: str, mode: Mode, batch: int, device: str) -> Thunk:
    """The work of a batch of driving images as bytes: keypoints, images, bytes; untrained weights."""
    torch.manual_seed(0)
    talker = load(preset, pretrained=False, device=device, dtype=mode.dtype).requires_grad_(False)
    size = talker.image_size
    frames = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).to(device)
    with torch.inference_mode():
        state = talker.encode_source(to_images(frames[:1]))

    @torch.inference_mode()
    def work() -> torch.Tensor:
        return to_bytes(talker.animate_keypoints(state, talker.keypoints(to_images(frames))))

    return work


def measure_model(preset: str, device: str, deadline: float) -> Iterator[Record]:
    """A record for each batch and mode, largest batch first, until the time of `time.monotonic` is over."""
    for batch in reversed(BATCHES):
        for mode in MODES:
            if time.monotonic() > deadline:
                return
            yield {"batch": batch, "mode": mode.name, **_measured(preset, mode, batch, device)}


def _measured(preset: str, mode: Mode, batch: int, device: str) -> Record:
    record: Record = {}
    try:
        with float32_convolutions(mode.convolutions):
            work = batch_of(preset, mode, batch, device)
            record["eager"] = asdict(measure_eager(work, REPLAYS))
            record |= {"waits": waits(work), **launches(work)}
            record["graph"] = asdict(measure(work, REPLAYS))
    except Exception as error:  # one mode that breaks must not cost the others
        record["fail"] = f"{type(error).__name__}: {str(error)[:500]}"
    return record


def waits(work: Thunk) -> list[str]:
    """The places in a call that make the CPU wait for the GPU, as torch notices them."""
    with _noticed_waits(), warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        work()
    return [str(one.message).partition("\n")[0] for one in found if "synchroniz" in str(one.message)]


@contextmanager
def _noticed_waits() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("warn")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def launches(work: Thunk) -> Record:
    """The number of kernels, copies and fills that a call launches, and the profiler's table of them."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as recorded:
        work()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
    averages = recorded.key_averages()
    on_gpu = [one for one in averages if str(one.device_type).endswith(".CUDA")]
    table = averages.table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=60)
    return {"launches": sum(one.count for one in on_gpu), "profile": table}


def line(record: Record) -> str:
    """One row of the table."""
    head = f"batch {record['batch']:3} {record['mode']:30}"
    rates = [
        f"{way} {record['batch'] / record[way]['median']:8.1f} frames/s" for way in ("eager", "graph") if way in record
    ]
    counts = f"{record['launches']} launches, {len(record['waits'])} waits" if "launches" in record else ""
    return "  ".join([head, *rates, counts, f"FAIL: {record['fail']}" if "fail" in record else ""]).rstrip()


def main() -> int:
    """The command line; 1 where a mode failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper", help="(paper)")
    parser.add_argument("--json", type=Path, help="also write the records to this file, as they come")
    parser.add_argument("--seconds", type=float, default=60, help="after this time nothing further is begun (60)")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench.gpu_model needs a CUDA GPU; bench.run measures the CPU")
    records: list[Record] = []
    for record in measure_model(arguments.preset, "cuda", time.monotonic() + arguments.seconds):
        records.append(record)
        print(line(record), flush=True)
        if arguments.json is not None:
            report = {"preset": arguments.preset, "machine": header("cuda"), "records": records}
            write_text(arguments.json, json.dumps(report, indent=1) + "\n")
    profiles = [record["profile"] for record in records if "profile" in record]
    print(*profiles[:1], sep="\n")
    return int(any("fail" in record for record in records))


if __name__ == "__main__":
    sys.exit(main())
