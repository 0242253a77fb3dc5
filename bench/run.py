"""The speed of every op and of the whole model here, beside what the machine can do, and beside their peers.

python bench/run.py [--op flow_warp | --model mini | --batch] [--peer faiss] [--json FILE] [--html FILE] ...

Without arguments: the ops at the paper's shapes, the paper's model stage by stage and a training step, within two
minutes. With --batch, in three minutes: `cbtalk batch` with 1, 2 and 4 workers, short jobs and a long one, in each
precision, beside the model alone. The order is fixed: the machine, its ceilings, a gate that every op must pass,
warm-up, times. An op whose result is wrong prints FAIL and no time. torch.compile takes minutes to compile: ask for it
with --peer torch.compile.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # As a script, its own folder heads the path; the checkout's root makes `bench` importable instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import torch

from bench import compare, machine, report
from bench.batch_speed import measure_batch
from bench.calls import measure_calls
from bench.case import Setting
from bench.cases import OPS, cases
from bench.ceilings import measure_ceilings
from bench.measure import Prepared, add_floor, gate, time_case
from bench.model import add_shares, make_scene, measure_model
from bench.page import page
from bench.tracing import write_trace
from bench.training import add_share, measure_training
from cbtalk.allocator import keep_freed_memory
from cbtalk.atomic import atomic_path

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CASE_SECONDS, MODEL_SECONDS = 0.9, 10.0
BATCH_WORKERS, BATCH_JOBS = (1, 2, 4), 8

Results = dict[str, Any]


def main() -> int:
    """The command line; 1 where a gate is red."""
    arguments = _arguments()
    begin = time.monotonic()
    torch.set_num_threads(arguments.threads)
    torch.backends.cuda.matmul.allow_tf32 = False
    keep_freed_memory()  # as the command line does
    base = json.loads(arguments.base.read_text()) if arguments.base else None
    results: Results = {"machine": machine.header(arguments.device)}
    report.show_machine(results["machine"])
    _measure(arguments, results)
    results["seconds"] = time.monotonic() - begin
    report.show(results)
    if base is not None:
        report.show_changes(compare.changes(base, results))
    if arguments.json is not None:
        _write(arguments.json, json.dumps(results, indent=1) + "\n")
    if arguments.html is not None:
        _write(arguments.html, page(results))
    return int(any("fail" in record for record in results.get("ops", [])))


def _measure(arguments: argparse.Namespace, results: Results) -> None:
    device, pace = arguments.device, 0.2 if arguments.quick else 1.0
    ceilings = measure_ceilings(device, 5 * pace)
    everything = arguments.op is None and arguments.model is None and not arguments.batch
    prepared: list[Prepared] = []
    if arguments.op or everything:
        setting = Setting(device, DTYPES[arguments.dtype], sweep=arguments.shape == "sweep")
        prepared = list(_gated(arguments, setting))
        results["ops"] = list(_timed(prepared, device, CASE_SECONDS * pace))
        ceilings = ceilings.best(measure_ceilings(device, 2 * pace))
    if everything:
        report.progress("the cost of a call")
        results["calls"] = measure_calls()
    scene = make_scene(arguments.model or "paper", device) if arguments.model or everything else None
    if scene is not None:
        report.progress("the whole model")
        results["model"] = measure_model(scene, MODEL_SECONDS * pace)
        report.progress("a training step")
        results["training"] = measure_training(device)
        ceilings = ceilings.best(measure_ceilings(device, 2 * pace))
        add_shares(results["model"], device, ceilings)
        add_share(results["training"], ceilings)
    for one, record in zip(prepared, results.get("ops", []), strict=True):
        add_floor(record, one.case, ceilings)
    if arguments.batch:
        report.progress("batches")
        results["batch"] = measure_batch(BATCH_WORKERS, round(BATCH_JOBS * max(0.5, pace)))
    results["ceilings"] = asdict(ceilings)
    if arguments.profile is not None:
        write_trace(arguments.profile, prepared, scene, device)


def _gated(arguments: argparse.Namespace, setting: Setting) -> Iterator[Prepared]:
    chosen = cases(setting, arguments.op or OPS, direction=arguments.direction, peers=arguments.peer)
    for number, case in enumerate(chosen, 1):
        report.progress(f"gate {number}/{len(chosen)}: {case.name}")
        yield gate(case, arguments.backend, arguments.device)


def _timed(prepared: list[Prepared], device: str, seconds: float) -> Iterator[dict[str, Any]]:
    for number, one in enumerate(prepared, 1):
        report.progress(f"time {number}/{len(prepared)}: {one.case.name}")
        yield time_case(one, device, seconds)


def _write(path: Path, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--op", choices=OPS, action="append", help="only this op; may be repeated")
    add("--model", choices=["paper", "mini"], help="the whole model and a training step instead of the ops")
    add("--batch", action="store_true", help="batches of short jobs and of a long one instead of the ops")
    add("--backend", default="auto", help="the backend of our side of the ops")
    add("--peer", action="append", help="only peers with this in their name; may be repeated")
    add("--dtype", choices=list(DTYPES), default="float32", help="of the ops")
    add("--shape", choices=["paper", "sweep"], default="paper", help="sweep: batches 1, 4, 16 and odd sizes")
    add("--direction", choices=["fwd", "bwd", "both"], default="both", help="bwd: forward and backward together")
    add("--device", choices=["cpu", "cuda"], default="cuda" if torch.cuda.is_available() else "cpu")
    add("--threads", type=int, default=torch.get_num_threads(), help="of the CPU")
    add("--quick", action="store_true", help="a fifth of the time a case")
    add("--json", type=Path, help="also write the figures to this file")
    add("--base", type=Path, help="the --json of an earlier run: print what changed beyond the noise")
    add("--html", type=Path, help="also write a page with plots that needs no network")
    add("--profile", type=Path, help="also write a trace of torch's profiler, for chrome://tracing or Perfetto")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
