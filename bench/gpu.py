"""Measures the GPU kernels: share of the floor, and against the best of torch.

python -m bench.gpu [--op flow_warp] [--json FILE] [--seconds 240]

Each backend passes its parity gate before it is timed; the faster of ours is named at the end, for each case and dtype.
Peers under torch.compile come last, as long as the time lasts.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench.case import Case, Inputs, Setting
from bench.cases import cases
from bench.ceilings import Ceilings, measure_ceilings
from bench.gpu_timing import measure, measure_eager
from bench.machine import header
from bench.measure import with_backend
from bench.peak import peak_bytes
from bench.peers import COMPILED
from cbtalk.doctor import GPU_BACKENDS, results
from cbtalk.errors import BackendError
from cbtalk.ops.examples import ON_GPU, named
from tests.helpers.checks import assert_error_budget

DTYPES = (torch.float32, torch.bfloat16)  # of training and rendering
BATCH = 16

Record = dict[str, Any]


def wrong(case: Case, inputs: Inputs, backend: str) -> str | None:
    """The fault of the output or, where the case has them, of a gradient, judged by the error budget, or None."""
    example = named(case.op)
    backward = case.direction == "bwd"
    found = results(example, inputs, backend, backward=backward)
    plain = results(example, inputs, backward=backward)
    exact = results(example, [x.double() for x in inputs], backward=backward)
    names = ["output", *(f"gradient {number}" for number in range(1, len(exact)))]
    for name, *three in zip(names, found, plain, exact, strict=True):
        try:
            assert_error_budget(*three)
        except AssertionError as error:
            return f"{name}: {error}"
    return None


def measure_ours(case: Case, backend: str, ceilings: Ceilings) -> Record:
    """Parity, times, share of the floor and peak memory of one backend.

    The error budget is of single elements, and where a flow crosses from pixel to pixel its gradient jumps: a position
    that float32 moves across is such an element. What breaks the budget alone and passes the case's own judge, by the
    norm, is timed with the remark beside it.
    """
    inputs = case.make_inputs(_generator())
    try:
        thunk = with_backend(case.ours(*inputs), backend)
        remark = wrong(case, inputs, backend)
        if remark is not None and (fault := case.judge(inputs)(thunk())) is not None:
            return {"fail": f"{remark}; {fault}"}
        times = {"graph": asdict(measure(thunk)), "eager": asdict(measure_eager(thunk))}
        record: Record = {**times, "peak": peak_bytes(thunk, "cuda")}
    except BackendError as reason:
        return {"off": str(reason)}
    except Exception as error:  # one case that breaks must not cost the others
        return {"fail": f"{type(error).__name__}: {str(error)[:500]}"}
    assert case.work is not None
    record |= {} if remark is None else {"remark": remark}
    return {**record, "share": ceilings.floor(case.work).seconds / record["graph"]["median"]}


def measure_peer(case: Case, name: str) -> Record:
    """Times of a peer; its values are its own affair."""
    peer = case.peers[name]
    if isinstance(peer, str):
        return {"off": peer}
    try:
        thunk = peer(*case.make_inputs(_generator()))
        return {"graph": asdict(measure(thunk)), "eager": asdict(measure_eager(thunk))}
    except Exception as error:
        return {"fail": f"{type(error).__name__}: {str(error)[:500]}"}


def _generator() -> torch.Generator:
    return torch.Generator("cuda").manual_seed(0)


def line(record: Record) -> str:
    """One row of the table."""
    head = f"{record['case']:70} {record['dtype']:8} {record['side']:26}"
    for reason in ("fail", "off"):
        if reason in record:
            return f"{head} {reason.upper()}: {record[reason]}"
    graph, eager = (1e6 * record[key]["median"] for key in ("graph", "eager"))
    share = f"   floor {record['share']:.0%}" if record.get("share") else ""
    remark = f"   {record['remark']}" if "remark" in record else ""
    return f"{head} {graph:10.1f} us, eager {eager:10.1f} us{share}{remark}"


def winners(records: Sequence[Record]) -> Iterator[str]:
    """For each case and dtype the faster of our backends, in a graph: what the order of "auto" is to be."""
    medians: dict[tuple[str, str], dict[str, float]] = {}
    for record in records:
        if record["side"] in GPU_BACKENDS and "graph" in record:
            times = medians.setdefault((record["case"], record["dtype"]), {})
            times[record["side"]] = record["graph"]["median"]
    for (name, dtype), times in medians.items():
        first = min(times, key=lambda side: times[side])
        others = [
            f"{side} takes {taken / times[first]:.2f} of its time" for side, taken in times.items() if side != first
        ]
        yield f"{name:70} {dtype:8} {first} wins: {', '.join(others) or 'no other was timed'}"


def main() -> int:
    """The command line; 1 where a parity gate failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = [example.name for example in ON_GPU]
    parser.add_argument("--op", choices=names, action="append", help="only this op; may be repeated")
    parser.add_argument("--json", type=Path, help="also write the records to this file, as they come")
    parser.add_argument("--seconds", type=float, default=240, help="after this time no further case is begun")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench.gpu needs a CUDA GPU; bench.run measures the CPU")
    deadline = time.monotonic() + arguments.seconds
    torch.backends.cuda.matmul.allow_tf32 = False
    ceilings = measure_ceilings("cuda")
    machine = header("cuda")  # now, so that the clocks are those of a GPU at work
    print(machine, ceilings, sep="\n", flush=True)
    records: list[Record] = []
    for dtype, case, side in order(arguments.op or names, BATCH):
        if time.monotonic() > deadline:
            print("out of time: the remaining cases were not measured")
            break
        ours = side in GPU_BACKENDS
        found = measure_ours(case, side, ceilings) if ours else measure_peer(case, side)
        records.append({"case": case.name, "dtype": str(dtype).removeprefix("torch."), "side": side, **found})
        print(line(records[-1]), flush=True)
        if arguments.json is not None:
            report = {
                "machine": machine,
                "ceilings": asdict(ceilings),
                "records": records,
                "winners": list(winners(records)),
            }
            arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    print(*winners(records), sep="\n")
    return int(any("fail" in record and record["side"] in GPU_BACKENDS for record in records))


def order(ops: Sequence[str], batch: int) -> Iterator[tuple[torch.dtype, Case, str]]:
    """Ours and the eager peers of every case, then the compiled ones, which take long to compile."""
    found = [
        (dtype, case, side)
        for dtype in DTYPES
        for case in cases(Setting("cuda", dtype, batch), ops, peers=[""])
        for side in (*GPU_BACKENDS, *case.peers)
    ]
    yield from (one for one in found if one[-1] != COMPILED)
    yield from (one for one in found if one[-1] == COMPILED)


if __name__ == "__main__":
    sys.exit(main())
