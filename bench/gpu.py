"""Measures the GPU kernels: share of the floor, and against the best of torch.

python -m bench.gpu [--op flow_warp] [--json FILE] [--seconds 240]

Each backend passes its parity gate before it is timed. Peers under torch.compile come last, as long as the time lasts.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.ceilings import Ceilings, measure_ceilings
from bench.gpu_cases import Function, GpuCase, selected
from bench.gpu_timing import measure, measure_eager
from bench.peak import peak_bytes
from cbtalk.errors import BackendError
from tests.checks import assert_error_budget

BACKENDS = ("cuda", "triton")
COMPILED = "torch.compile"

Record = dict[str, Any]


def gradients(function: Function, inputs: Iterable[Tensor], **arguments: Any) -> list[Tensor]:
    """[output, gradient of each input] for a fixed, uneven gradient of the output."""
    leaves = [x.detach().requires_grad_() for x in inputs]
    out = function(*leaves, **arguments)
    weight = torch.linspace(-1, 2, out.numel(), device=out.device, dtype=torch.float64).to(out.dtype).view(out.shape)
    return [out.detach(), *torch.autograd.grad(out, leaves, weight)]


def wrong(case: GpuCase, inputs: tuple[Tensor, ...], backend: str) -> str | None:
    """What is wrong with the output or a gradient, judged by the error budget, or None."""
    found = gradients(case.run, inputs, backend=backend)
    plain = gradients(case.reference, inputs)
    exact = gradients(case.reference, [x.double() for x in inputs])
    names = ["output", *(f"gradient {number}" for number in range(1, len(exact)))]
    for name, *three in zip(names, found, plain, exact, strict=True):
        try:
            assert_error_budget(*three)
        except AssertionError as error:
            return f"{name}: {error}"
    return None


def times(function: Function, inputs: tuple[Tensor, ...], captured: bool = True) -> Record:
    """Seconds of the forward pass, and of forward and backward together."""
    clock = measure if captured else measure_eager

    def forward() -> Tensor:
        with torch.no_grad():
            return function(*inputs)

    return {"forward": asdict(clock(forward)), "both": asdict(clock(lambda: gradients(function, inputs)))}


def measure_ours(case: GpuCase, backend: str, ceilings: Ceilings) -> Record:
    """Parity, times, shares of the floor and peak memory of one backend."""
    inputs = case.make_inputs()
    record: Record = {"case": case.name, "side": backend}
    try:
        fault = wrong(case, inputs, backend)
        if fault is not None:
            return {**record, "fail": fault}
        # Without the gradient's own making, which every side would pay for.
        record |= times(lambda *given: case.run(*given, backend=backend), inputs)
        record["eager"] = asdict(measure_eager(lambda: case.run(*inputs, backend=backend)))
        record["peak"] = peak_bytes(lambda: case.run(*inputs, backend=backend), "cuda")
    except BackendError as reason:
        return {**record, "off": str(reason)}
    except Exception as error:  # one case that breaks must not cost the others
        return {**record, "fail": f"{type(error).__name__}: {str(error)[:500]}"}
    backward = record["both"]["median"] - record["forward"]["median"]
    record["forward share"] = case.forward_floor(ceilings) / record["forward"]["median"]
    record["backward share"] = case.backward_floor(ceilings) / backward if backward > 0 else None
    return record


def measure_peer(case: GpuCase, name: str) -> Record:
    """Times of a peer; its values are its own affair."""
    record: Record = {"case": case.name, "side": name}
    try:
        return record | times(case.peers[name], case.make_inputs())
    except Exception as error:
        return {**record, "fail": f"{type(error).__name__}: {str(error)[:500]}"}


def line(record: Record) -> str:
    """One row of the table."""
    head = f"{record['case']:52} {record['side']:16}"
    for reason in ("fail", "off"):
        if reason in record:
            return f"{head} {reason.upper()}: {record[reason]}"
    forward, both = (1e6 * record[key]["median"] for key in ("forward", "both"))
    shares = [record.get(f"{direction} share") for direction in ("forward", "backward")]
    text = " | ".join("-" if share is None else f"{share:.0%}" for share in shares)
    return f"{head} {forward:10.1f} us {both - forward:10.1f} us   floor {text}"


def main() -> int:
    """The command line; 1 where a parity gate failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", help="only this op")
    parser.add_argument("--json", type=Path, help="also write the records to this file, as they come")
    parser.add_argument("--seconds", type=float, default=240, help="after this time no further case is begun")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench.gpu needs a CUDA GPU; bench.run measures the CPU")
    deadline = time.monotonic() + arguments.seconds
    torch.manual_seed(0)
    torch.backends.cuda.matmul.allow_tf32 = False
    ceilings = measure_ceilings("cuda")
    print(ceilings)
    records: list[Record] = []
    for case, side in order(list(selected(arguments.op))):
        if time.monotonic() > deadline:
            print("out of time: the remaining cases were not measured")
            break
        ours = side in BACKENDS
        records.append(measure_ours(case, side, ceilings) if ours else measure_peer(case, side))
        print(line(records[-1]), flush=True)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps({"ceilings": asdict(ceilings), "records": records}, indent=1) + "\n")
    return int(any("fail" in record and record["side"] in BACKENDS for record in records))


def order(cases: list[GpuCase]) -> Iterable[tuple[GpuCase, str]]:
    """Ours and the eager peers of every case, then the compiled ones, which take long to compile."""
    yield from ((case, side) for case in cases for side in (*BACKENDS, *(p for p in case.peers if p != COMPILED)))
    yield from ((case, COMPILED) for case in cases)


if __name__ == "__main__":
    sys.exit(main())
