"""Times several functions fairly: in turns, so that a change of the clock or a neighbour's load meets all alike."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median

from bench.case import Thunk


@dataclass(frozen=True)
class Timing:
    """Seconds a call: the median and the 20 % and 80 % quantiles over `rounds` calls."""

    median: float
    low: float
    high: float
    rounds: int


def interleave(functions: Mapping[str, Thunk], *, seconds: float, min_rounds: int = 5) -> dict[str, Timing]:
    """Calls every function once a round, after a warm-up round each, for about `seconds` in all."""
    for function in functions.values():
        function()
        function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or time.perf_counter() - start < seconds:
        for name, function in functions.items():
            before = time.perf_counter()
            function()
            samples[name].append(time.perf_counter() - before)
        rounds += 1
    return {name: _summary(values) for name, values in samples.items()}


def _summary(values: list[float]) -> Timing:
    ordered = sorted(values)
    last = len(ordered) - 1
    return Timing(median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)], len(ordered))
