import torch
from torch import Tensor

from bench.case import Case, Inputs, Prepare
from bench.run import OURS, measure, table
from bench.timing import interleave


def make_inputs(generator: torch.Generator) -> Inputs:
    return (torch.rand(8, generator=generator),)


def double_is_right(inputs: Inputs, result: object) -> str | None:
    assert isinstance(result, Tensor)
    return None if torch.equal(result, inputs[0] * 2) else "not the double"


def test_a_case_that_fails_its_parity_gate_gets_no_time() -> None:
    case = Case("wrong", make_inputs, lambda x: lambda: x * 3, {"right": lambda x: lambda: x * 2}, double_is_right)
    record = measure(case, "auto", seconds=0)
    assert "times" not in record
    assert "FAIL: not the double" in "\n".join(table(record))


def test_a_wrong_or_absent_peer_is_remarked_and_ours_is_timed() -> None:
    peers: dict[str, Prepare | str] = {"wrong": lambda x: lambda: x * 3, "absent": "no such package"}
    record = measure(Case("right", make_inputs, lambda x: lambda: x * 2, peers, double_is_right), "auto", seconds=0)
    assert set(record["times"]) == {OURS, "wrong"}
    text = "\n".join(table(record))
    assert "[not the double]" in text and "not here: no such package" in text


def test_functions_are_timed_in_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    timings = interleave({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, seconds=0, min_rounds=3)
    assert "".join(calls) == "aabb" + "ababab"
    assert all(timing.rounds == 3 and timing.low <= timing.median <= timing.high for timing in timings.values())
