"""Measures the ops against their peers: `python -m bench.run [--op flow_warp] [--backend cpp] [--json FILE]`,
or the whole model: `python -m bench.run --model paper`.

Each case passes its parity gate before it is timed; one that fails prints FAIL and no time.
"""

import argparse
import importlib
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from bench import machine
from bench.case import Case, Thunk
from bench.model import measure_model, model_table
from bench.timing import interleave
from cbtalk.allocator import keep_freed_memory
from cbtalk.ops.backends import use_backend

OPS = sorted(path.stem for path in (Path(__file__).parent / "ops").glob("[a-z]*.py"))
OURS = "cbtalk"


def measure(case: Case, backend: str, seconds: float) -> dict[str, Any]:
    """One case as a JSON-able record; `fail` in it says why there are no times."""
    inputs = case.make_inputs(torch.Generator().manual_seed(0))
    ours = _with_backend(case.ours(*inputs), backend)
    fail = case.check(inputs, ours())
    if fail is not None:
        again = case.check(inputs, ours())  # tells a fault that comes and goes from one of these inputs
        return {"case": case.name, "fail": f"{fail}; the same call again: {again or 'right'}"}
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
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command line does
    facts = machine.header()
    print("\n".join(f"{key}: {value}" for key, value in facts.items()))
    seconds = 1.0 if arguments.quick else 5.0
    records: dict[str, list[dict[str, Any]]] = {}
    if arguments.model is not None:
        records["model"] = [measure_model(arguments.model, 6 * seconds)]
        print("\n".join(model_table(records["model"][0])))
    else:
        for op in arguments.op or OPS:
            records[op] = list(_measure_op(op, arguments.backend, seconds))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"machine": facts, "records": records}, indent=1) + "\n")
    return int(any("fail" in record for group in records.values() for record in group))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--op", choices=OPS, action="append", help="only this op; may be repeated")
    parser.add_argument("--model", choices=["paper", "mini"], help="the whole model instead of the ops")
    parser.add_argument("--backend", default="auto", help="the backend of our side of the ops")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--quick", action="store_true", help="a fifth of the time a case")
    parser.add_argument("--json", type=Path, help="also write the records to this file")
    return parser.parse_args()


def _measure_op(op: str, backend: str, seconds: float) -> Iterator[dict[str, Any]]:
    print(op, flush=True)
    for case in importlib.import_module(f"bench.ops.{op}").cases():
        record = measure(case, backend, seconds)
        print("\n".join(table(record)), flush=True)
        yield record


if __name__ == "__main__":
    sys.exit(main())
