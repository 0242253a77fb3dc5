"""The cost of a call: from Python to the result, on inputs so small that computing takes next to nothing."""

import time
from functools import partial

import torch

from bench.case import Thunk
from cbtalk.model.blocks import Conv3x3
from cbtalk.ops import transform_weight, vector_quantize
from cbtalk.ops.examples import EXAMPLES, named

ROUNDS, CALLS = 7, 1000


@torch.inference_mode()
def measure_calls(rounds: int = ROUNDS, calls: int = CALLS) -> dict[str, float]:
    """Seconds a call of each op on the CPU, at inference: the lowest of several runs, interleaved."""
    functions = _functions()
    lowest = dict.fromkeys(functions, float("inf"))
    for _ in range(rounds):
        for name, function in functions.items():
            lowest[name] = min(lowest[name], _seconds(function, calls))
    return lowest


def _functions() -> dict[str, Thunk]:
    inputs = {example.name: example.inputs("cpu", **{**example.small, "batch": 1}) for example in EXAMPLES}
    calls: dict[str, Thunk] = {name: partial(named(name).op, *given) for name, given in inputs.items()}
    # Without the sum that makes one tensor of the results.
    calls["vector_quantize"] = partial(vector_quantize, *inputs["vector_quantize"])
    # As the model calls it, with the weight transformed once; and the op that it ends in.
    del calls["conv3x3"]
    x, weight, bias = inputs["conv3x3"]
    module = Conv3x3(weight.shape[1], weight.shape[0])
    packed = transform_weight(weight, 16)
    raw = torch.ops.cbtalk.conv3x3.default
    return {
        **calls,
        "conv3x3, module": partial(module, x),
        "conv3x3, raw op": lambda: raw(x, weight, packed, bias, None, 1.0, False),
    }


def _seconds(function: Thunk, calls: int) -> float:
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls
