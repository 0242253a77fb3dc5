"""Measures the ops against their peers: `python -m bench.run [--op flow_warp] [--backend cpp] [--json FILE]`.

Each case passes its parity gate before it is timed; one that fails prints FAIL and no time.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import machine
from bench.case import Case, Thunk
from bench.timing import interleave
from cbtalk.ops.backends import use_backend

OPS = sorted(path.stem for path in (Path(__file__).parent / "ops").glob("[a-z]*.py"))
OURS = "cbtalk"


def measure(case: Case, backend: str, seconds: float) -> dict[str, Any]:
    """One case as a JSON-able record; `fail` in it says why there are no times."""
    inputs = case.make_inputs(torch.Generator().manual_seed(0))
    ours = _with_backend(case.ours(*inputs), backend)
    fail = case.check(inputs, ours())
    if fail is not None:
        return {"case": case.name, "fail": fail}
    functions = {OURS: ours}
    remarks: dict[str, str] = {}
    for name, peer in case.peers.items():
        if isinstance(peer, str):
            remarks[name] = f"not here: {peer}"
            continue
        functions[name] = peer(*inputs)
        wrong = case.check(inputs, functions[name]())
        if wrong is not None:
            remarks[name] = wrong
    times = interleave(functions, seconds=seconds)
    return {"case": case.name, "times": {name: asdict(timing) for name, timing in times.items()}, "remarks": remarks}


def _with_backend(thunk: Thunk, backend: str) -> Thunk:
    if backend == "auto":
        return thunk

    def forced() -> object:
        with use_backend(backend):
            return thunk()

    return forced


def table(record: dict[str, Any]) -> Iterable[str]:
    """The record in lines: milliseconds, and how many times longer than ours each peer takes."""
    yield f"  {record['case']}"
    if "fail" in record:
        yield f"    FAIL: {record['fail']}"
        return
    ours = record["times"][OURS]["median"]
    for name, timing in record["times"].items():
        milliseconds = [1e3 * timing[key] for key in ("median", "low", "high")]
        remark = record["remarks"].get(name)
        yield (
            f"    {name:32} {milliseconds[0]:9.3f} ms  ({milliseconds[1]:.3f} .. {milliseconds[2]:.3f})"
            f"  {timing['median'] / ours:6.2f} x{f'   [{remark}]' if remark else ''}"
        )
    for name, remark in record["remarks"].items():
        if name not in record["times"]:
            yield f"    {name:32} {remark}"


def main() -> int:
    """The command line; 1 where a parity gate failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=OPS, action="append", help="only this op; may be repeated")
    parser.add_argument("--backend", default="auto", help="the backend of ours")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a fifth of the time a case")
    parser.add_argument("--json", type=Path, help="also write the records to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    seconds = 1.0 if arguments.quick else 5.0

    facts = machine.header()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    records: dict[str, list[dict[str, Any]]] = {}
    for op in arguments.op or OPS:
        print(op, flush=True)
        records[op] = []
        for case in importlib.import_module(f"bench.ops.{op}").cases():
            records[op].append(measure(case, arguments.backend, seconds))
            print("\n".join(table(records[op][-1])), flush=True)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": facts, "ops": records}, indent=1) + "\n")
    return int(any("fail" in record for group in records.values() for record in group))


if __name__ == "__main__":
    sys.exit(main())
