"""Gates the cases and times them: ours against the peers, on rotated buffers, with floors and peak memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import cycle
from typing import Any

import torch

from bench.case import Case, Inputs, Judge, Prepare, Thunk
from bench.ceilings import Ceilings
from bench.gpu_timing import event_clock
from bench.peak import peak_bytes
from bench.timing import in_rounds, summary, wall_clock
from cbtalk.errors import BackendError
from cbtalk.model.cuda_graphs import captured
from cbtalk.ops.backends import use_backend

OURS = "cbtalk"
GRAPH = ", in a graph"
BUFFERS = 3  # sets of inputs, taken in turns: no call finds in the caches what the call before it left there

Record = dict[str, Any]


@dataclass
class Prepared:
    """A case behind its gate: for each side one thunk a buffer, ours first; a red gate leaves none."""

    case: Case
    sides: dict[str, list[Thunk]]
    remarks: dict[str, str]
    refusal: dict[str, str]  # "fail": ours is wrong; "off": the backend asked for cannot run


def gate(case: Case, backend: str, device: str) -> Prepared:
    """Makes the inputs and judges every side by its first result; every side is then warm on every buffer."""
    buffers = [case.make_inputs(torch.Generator(device).manual_seed(seed)) for seed in range(BUFFERS)]
    judge = case.judge(buffers[0])
    prepared = Prepared(case, {}, {}, {})
    try:
        ours = [with_backend(case.ours(*inputs), backend) for inputs in buffers]
        fail = judge(ours[0]())
        if fail is not None:
            again = judge(ours[0]())  # tells a fault that comes and goes from one of these inputs
            prepared.refusal["fail"] = f"{fail}; the same call again: {again or 'right'}"
            return prepared
    except BackendError as reason:
        prepared.refusal["off"] = str(reason)
        return prepared
    prepared.sides[OURS] = ours
    for name, peer in case.peers.items():
        _add_peer(prepared, name, peer, buffers, judge)
    for thunks in prepared.sides.values():
        for thunk in thunks[1:]:
            thunk()
    return prepared


def _add_peer(prepared: Prepared, name: str, peer: Prepare | str, buffers: Sequence[Inputs], judge: Judge) -> None:
    """Times it even where its answer differs, with the remark; what cannot run has only the remark."""
    if isinstance(peer, str):
        prepared.remarks[name] = f"not here: {peer}"
        return
    try:
        thunks = [peer(*inputs) for inputs in buffers]
        wrong = judge(thunks[0]())
    except Exception as error:  # a peer is not ours to mend
        lines = str(error).splitlines() or [""]
        prepared.remarks[name] = f"not here: {type(error).__name__}: {lines[0][:160]}"
        return
    prepared.sides[name] = thunks
    if wrong is not None:
        prepared.remarks[name] = wrong


def with_backend(thunk: Thunk, backend: str) -> Thunk:
    """The thunk with our ops on a backend."""
    if backend == "auto":
        return thunk

    def forced() -> object:
        with use_backend(backend):
            return thunk()

    return forced


def time_case(prepared: Prepared, device: str, seconds: float) -> Record:
    """The JSON-able record of a case; "fail" or "off" in it says why there are no times."""
    case = prepared.case
    record: Record = {"op": case.op, "case": case.name, "direction": case.direction}
    if prepared.refusal:
        return record | prepared.refusal
    sides, remarks = prepared.sides, dict(prepared.remarks)
    if device == "cuda":
        sides = sides | dict(_in_graphs(sides, remarks))
    clock = event_clock if device == "cuda" else wall_clock
    turns = {name: _in_turns(thunks) for name, thunks in sides.items()}
    samples = in_rounds(turns, seconds=seconds, clock=clock)
    return record | {
        "times": {name: asdict(summary(seconds)) for name, seconds in samples.items()},
        "ratios": {name: asdict(summary(ratios)) for name, ratios in _ratios(samples)},
        "peaks": {name: peak_bytes(thunks[0], device) for name, thunks in prepared.sides.items()},
        "remarks": remarks,
        "work": asdict(case.work) if case.work else None,
    }


def _ratios(samples: Mapping[str, list[float]]) -> Iterator[tuple[str, list[float]]]:
    """Each side's time over ours in the same round: a neighbour's load that lasts for rounds meets both."""
    for name, seconds in samples.items():
        if name not in (OURS, OURS + GRAPH):
            ours = samples.get(ours_beside(name), samples[OURS])
            yield name, [side / own for side, own in zip(seconds, ours, strict=True)]


def _in_turns(thunks: Sequence[Thunk]) -> Thunk:
    turns = cycle(thunks)
    return lambda: next(turns)()


def _in_graphs(sides: Mapping[str, list[Thunk]], remarks: dict[str, str]) -> Iterator[tuple[str, list[Thunk]]]:
    """The sides once more, captured; a side that cannot be captured leaves a remark."""
    for name, thunks in sides.items():
        try:
            yield name + GRAPH, [captured(thunk, torch.device("cuda"))[0].replay for thunk in thunks]
        except RuntimeError as error:
            remarks[name + GRAPH] = f"not here: {str(error).splitlines()[0][:160]}"


def ours_beside(side: str) -> str:
    """Our side that runs as `side` does: in a graph or not."""
    return OURS + GRAPH if side.endswith(GRAPH) else OURS


def add_floor(record: Record, case: Case, ceilings: Ceilings) -> None:
    """The floor of the case and the share of it that our fastest time reaches, by the ceilings of the whole run."""
    if "times" not in record or case.work is None:
        return
    floor = ceilings.floor(case.work)
    fastest = min(timing["median"] for name, timing in record["times"].items() if name in (OURS, OURS + GRAPH))
    record["floor"] = {
        "seconds": floor.seconds,
        "by": floor.by,
        "share": floor.seconds / fastest,
        "GB/s": case.work.bytes / fastest / 1e9,
        "GFLOP/s": case.work.operations / fastest / 1e9,
    }
