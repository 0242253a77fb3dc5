from itertools import pairwise

import torch
from torch import Tensor

from bench.calls import measure_calls
from bench.case import Case, Inputs, Judge, Prepare, Thunk
from bench.ceilings import Ceilings
from bench.measure import BUFFERS, OURS, Record, add_floor, gate, time_case
from bench.peak import peak_bytes
from bench.report import case_table, console
from bench.timing import interleave
from bench.work import Work
from cbtalk.ops.examples import EXAMPLES

MEGABYTE = 1 << 20


def make_inputs(generator: torch.Generator) -> Inputs:
    return (torch.rand(8, generator=generator),)


def doubles(inputs: Inputs) -> Judge:
    def judge(result: object) -> str | None:
        assert isinstance(result, Tensor)
        return None if torch.equal(result, inputs[0] * 2) else "not the double"

    return judge


def times(factor: int) -> Prepare:
    return lambda x: lambda: x * factor


def a_case(ours: Prepare, peers: dict[str, Prepare | str]) -> Case:
    return Case("times", "(8)", "fwd", make_inputs, ours, peers, doubles, Work(64, 8))


def measured(case: Case) -> Record:
    record = time_case(gate(case, "auto", "cpu"), "cpu", seconds=0)
    add_floor(record, case, Ceilings(1e9, 1e9, 1e9, 1e9, 1e9))
    return record


def printed(record: Record) -> str:
    with console.capture() as capture:
        console.print(case_table(record))
    return capture.get()


def test_a_wrong_kernel_prints_fail_and_no_time() -> None:
    record = measured(a_case(times(3), {"right": times(2)}))
    assert "times" not in record and "floor" not in record
    text = printed(record)
    assert "FAIL: not the double; the same call again: not the double" in text
    assert "ms" not in text and " us" not in text


def test_a_fault_that_comes_and_goes_is_told() -> None:
    factors = iter([3, 2])
    record = measured(a_case(lambda x: lambda: x * next(factors), {}))
    assert record["fail"] == "not the double; the same call again: right"


def test_peers_that_are_wrong_absent_or_broken_are_remarked_and_ours_is_timed() -> None:
    def broken(x: Tensor) -> Thunk:
        raise RuntimeError("no such kernel\nand a traceback")

    record = measured(a_case(times(2), {"wrong": times(3), "absent": "no such package", "broken": broken}))
    assert set(record["times"]) == {OURS, "wrong"}
    assert record["remarks"] == {
        "wrong": "not the double",
        "absent": "not here: no such package",
        "broken": "not here: RuntimeError: no such kernel",
    }
    assert "not the double" in printed(record)


def test_a_backend_that_cannot_run_is_no_failure() -> None:
    from bench.case import Setting
    from bench.cases import cases

    case = next(case for case in cases(Setting(), ["conv3x3"]))
    record = time_case(gate(case, "cuda", "cpu"), "cpu", seconds=0)
    assert "times" not in record and "fail" not in record
    assert "cuda" in record["off"]


def test_buffers_take_turns() -> None:
    seen: list[int] = []

    def ours(x: Tensor) -> Thunk:
        def run() -> Tensor:
            seen.append(x.data_ptr())
            return x * 2

        return run

    prepared = gate(a_case(ours, {}), "auto", "cpu")
    seen.clear()
    time_case(prepared, "cpu", seconds=0)
    assert len(set(seen)) == BUFFERS
    assert all(one != two for one, two in pairwise(seen[:-1]))


def test_functions_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    timings = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0, min_rounds=3)
    assert "".join(calls) == "aabb" + "ababab"
    assert all(timing.rounds == 3 and timing.low <= timing.median <= timing.high for timing in timings.values())


def test_the_peak_counts_what_lives_at_once() -> None:
    x = torch.rand(MEGABYTE // 4)
    one, two = peak_bytes(lambda: x + 1, "cpu"), peak_bytes(lambda: (x + 1) * 2, "cpu")
    freed = peak_bytes(lambda: [(x + 1).sum() for _ in range(3)], "cpu")
    assert MEGABYTE <= one < 1.1 * MEGABYTE
    assert 2 * MEGABYTE <= two < 2.1 * MEGABYTE
    assert freed < 1.1 * MEGABYTE


def test_the_cost_of_a_call_is_that_of_every_op() -> None:
    costs = measure_calls(rounds=1, calls=2)
    assert {name.split(",")[0] for name in costs} == {example.name for example in EXAMPLES}
    assert all(cost > 0 for cost in costs.values())
