"""The share of its floor that each GPU kernel can reach by its machine code alone: predicted, not measured.

python -m bench.gpu_predict [--library FILE] [--op flow_warp]

Two tables in Markdown: the kernels of CUDA C++ and of Triton, with registers, spilled bytes, and the instructions of a
lane for an item in the loops that make the items; and the bench's cases on either backend. Triton's are compiled here
as its launchers would have them, without a GPU. A kernel takes the longest of four times:
  issue      instructions of all warps, one a clock for each of 4 schedulers of 132 multiprocessors, at 1.755 GHz
  memory     bytes read and written, each tensor once by each kernel, at 4.3 TB/s
  products   on tensor cores, by mma.sync at 62 % of 494 (TF32) or 989 TFLOP/s (halves), by wgmma at the floor's rates
  functions  exponentials, reciprocals and roots, 16 a clock and multiprocessor
and a case the sum of its kernels, with 2 microseconds for each launch. The floor is the bench's (bench/ops), at 4.3
TB/s, at 55 (float32), 430 (TF32) and 860 TFLOP/s (halves), and at as many exponentials. These rates are what a review
of this code took an H200 for, at a clock of its own; none was measured.

Nothing else is in it: no waiting for memory or for a product, no last wave of blocks, no shared memory that is busy, no
byte that a cache saves or fetches twice, no instruction that takes two slots, no sort by torch, no time of Python
between two launches, of which Triton takes more. So a share is the most that the code allows. Instructions are those of
`bench.gpu_ways`; what an iteration of each loop makes is said in bench/launches.
"""

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from bench.case import Case, Setting
from bench.cases import cases
from bench.ceilings import Ceilings, Floor
from bench.gpu import BATCH, DTYPES
from bench.gpu_code import LIBRARY, Code, read
from bench.gpu_ways import Way, Ways
from bench.launches import codebook_attention, flow_warp, nearest_code, triton
from bench.launches.launch import WARP, Launch, Loop, dtype_name
from bench.triton_code import compiled
from cbtalk.ops.examples import ON_GPU

ARCHITECTURE = "sm_90a"
# Of the ops that have CUDA C++; Triton's are recorded.
LAUNCHES: dict[str, Callable[[str, tuple[Tensor, ...]], list[Launch]]] = {
    "nearest_code": nearest_code.launches,
    "vector_quantize": nearest_code.launches_quantize,
    "flow_warp": flow_warp.launches,
    "codebook_attention": codebook_attention.launches,
    "self_attention": codebook_attention.launches,
}

_MULTIPROCESSORS, _CLOCK = 132, 1.755e9
_ISSUE = _MULTIPROCESSORS * 4 * _CLOCK  # instructions of a warp, a second
_FUNCTIONS = _MULTIPROCESSORS * 16 * _CLOCK
_PRODUCTS = {"tf32": 0.62 * 494e12, "bfloat16": 0.62 * 989e12}
_OPERATIONS = {"HMMA.1688": 2 * 16 * 8 * 8, "HMMA.16816": 2 * 16 * 8 * 16}
_WGMMA = re.compile(r"HGMMA\.64x(\d+)x(\d+)\.F32\.(TF32|BF16)")
_LAUNCH = 2e-6
CEILINGS = Ceilings(copy=4.3e12, float32=55e12, tf32=430e12, bfloat16=860e12, exponentials=_FUNCTIONS)


class Prediction(NamedTuple):
    """Of a launch; `code` and the instructions are None and 0 for what torch launches."""

    launch: Launch
    code: Code | None
    instructions: float  # of the loops that make the items, of a lane for an item
    time: Floor  # of the launch, and what sets it


class Total(NamedTuple):
    """A case with its launches on one backend, "cuda" or "triton"."""

    case: Case
    dtype: str
    backend: str
    parts: list[Prediction]
    floor: Floor

    @property
    def seconds(self) -> float:
        """Of all launches, one after the other."""
        return sum(part.time.seconds + _LAUNCH for part in self.parts)

    @property
    def share(self) -> float:
        """Of the floor in that time, at most."""
        return self.floor.seconds / self.seconds


class Kernels:
    """The kernels of a library by name, and those that Triton compiles."""

    def __init__(self, library: Path, architecture: str = ARCHITECTURE) -> None:
        self._codes = {code.name: code for code in read(library, architecture)}
        self._ways: dict[int, Ways] = {}

    def _code(self, launch: Launch) -> Code:
        return self._codes[launch.kernel] if launch.build is None else compiled(launch.build)

    def predict(self, launch: Launch) -> Prediction:
        """Raises bench.gpu_ways.NoWay where the machine code is not what the launch says."""
        memory = Floor(launch.bytes / CEILINGS.copy, "memory")
        if not launch.hot:
            return Prediction(launch, None, 0.0, memory)
        code = self._code(launch)
        if id(code) not in self._ways:
            self._ways[id(code)] = Ways(code.text)
        ways = self._ways[id(code)]
        hot = [(ways.whole(loop.marks) if launch.straight else _part(ways, loop), loop) for loop in launch.hot]
        others = [(_part(ways, loop), loop) for loop in launch.others]
        around = Way(0, ()) if launch.straight else ways.around(launch.hot[0].marks)
        all_ways = [*hot, *others, (around, Loop({}, 1))]
        hot_instructions = launch.warps * sum(way.length * loop.iterations for way, loop in hot)
        issued = launch.warps * sum(way.length * loop.iterations for way, loop in all_ways)
        functions = launch.warps * sum(way.count("MUFU") * loop.iterations for way, loop in all_ways) * WARP
        products = launch.warps * sum(_products(way, launch.products) * loop.iterations for way, loop in hot)
        time = max(
            memory,
            Floor(issued / _ISSUE, "issue"),
            Floor(functions / _FUNCTIONS, "functions"),
            Floor(products, "products"),
        )
        return Prediction(launch, code, hot_instructions * WARP / launch.items, time)


def _part(ways: Ways, loop: Loop) -> Way:
    """An iteration; of an outer loop what it has besides the inner one."""
    way = ways.iteration(loop.marks, loop.outer)
    return way if loop.outer == 0 else Way(way.length - ways.iteration(loop.marks).length, ())


def _products(way: Way, rate: str) -> float:
    """Seconds of the products of a warp: of mma.sync at that rate, of wgmma, which four warps share, by its type."""
    seconds = sum(way.count(product) * operations for product, operations in _OPERATIONS.items()) / _PRODUCTS[rate]
    for what in way.code:
        if (found := _WGMMA.search(what)) is not None:
            columns, depth, kind = found.groups()
            peak = CEILINGS.tf32 if kind == "TF32" else CEILINGS.bfloat16
            seconds += 2 * 64 * int(columns) * int(depth) / 4 / peak
    return seconds


def totals(kernels: Kernels, ops: Sequence[str]) -> Iterator[Total]:
    """All cases of the bench, once where they differ in their values alone."""
    for op in ops:
        for dtype in DTYPES:
            for case in cases(Setting("cuda", dtype, BATCH), [op], peers=[]):
                if "rough" in case.shape or "from the origin" in case.shape:
                    continue
                yield from _on_each_backend(kernels, case, dtype_name(dtype))


def _on_each_backend(kernels: Kernels, case: Case, dtype: str) -> Iterator[Total]:
    with FakeTensorMode():
        inputs = case.make_inputs(torch.Generator())
    assert case.work is not None
    floor = CEILINGS.floor(case.work)
    launches = {"triton": triton.launches(case.op, case.direction, inputs)}
    if case.op in LAUNCHES:
        launches = {"cuda": LAUNCHES[case.op](case.direction, inputs), **launches}
    for backend, found in launches.items():
        yield Total(case, dtype, backend, [kernels.predict(launch) for launch in found], floor)


def kernel_table(found: Sequence[Total]) -> Iterator[str]:
    """A kernel a row, at the first of the cases that have it."""
    yield _row("kernel", "item", "registers", "spilled", "instructions an item", "us", "set by")
    yield _row(*["---"] * 7)
    seen: set[str] = set()
    for part in (part for total in found for part in total.parts):
        code = part.code
        if code is None or code.name in seen:
            continue
        seen.add(code.name)
        counts = code.registers, code.stack, f"{part.instructions:.1f}"
        yield _row(code.name, part.launch.item, *counts, f"{1e6 * part.time.seconds:.1f}", part.time.by)


def case_table(found: Sequence[Total]) -> Iterator[str]:
    """A case and dtype a row, with all launches of each backend."""
    yield _row("case", "dtype", "floor us", "CUDA C++ us", "share at most", "Triton us", "share at most", "lower")
    yield _row(*["---"] * 8)
    for name, dtype in dict.fromkeys((total.case.name, total.dtype) for total in found):
        of_case = {total.backend: total for total in found if (total.case.name, total.dtype) == (name, dtype)}
        floor = f"{1e6 * of_case['triton'].floor.seconds:.1f}"
        cells = (cell for backend in ("cuda", "triton") for cell in _time_and_share(of_case.get(backend)))
        yield _row(name, dtype, floor, *cells, _lower({key: total.seconds for key, total in of_case.items()}))


def _time_and_share(total: Total | None) -> tuple[str, str]:
    return ("", "") if total is None else (f"{1e6 * total.seconds:.1f}", f"{total.share:.0%}")


def _lower(seconds: dict[str, float]) -> str:
    """The backend with the lower time, and how much lower; within a twentieth they are the same."""
    if len(seconds) == 1:
        return ""
    share = seconds["triton"] / seconds["cuda"]
    if 0.95 <= share <= 1 / 0.95:
        return "the same"
    return f"Triton, {1 - share:.0%}" if share < 1 else f"CUDA C++, {1 - 1 / share:.0%}"


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=Path, default=LIBRARY, help="a built library")
    names = [example.name for example in ON_GPU]
    parser.add_argument("--op", choices=names, action="append", help="only this op; may be repeated")
    arguments = parser.parse_args()
    if not arguments.library.exists():
        sys.exit(f"{arguments.library}: no such file; build it on a machine with nvcc, or give --library")
    found = list(totals(Kernels(arguments.library), arguments.op or names))
    print(f"Predicted, not measured: {ARCHITECTURE}, batch {BATCH}\n")
    print(*kernel_table(found), "", *case_table(found), sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
