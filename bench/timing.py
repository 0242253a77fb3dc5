"""Times several functions fairly: in turns, so that a change of the clock or a neighbour's load meets all alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from bench.case import Thunk

Clock = Callable[[Thunk], float]  # calls and gives the seconds


@dataclass(frozen=True)
class Timing:
    """Seconds a call, or a ratio: the median and the 20 % and 80 % quantiles over `rounds` calls."""

    median: float
    low: float
    high: float
    rounds: int


def wall_clock(thunk: Thunk) -> float:
    """Seconds of a call on the CPU."""
    before = time.perf_counter()
    thunk()
    return time.perf_counter() - before


def in_rounds(
    functions: Mapping[str, Thunk],
    *,
    seconds: float,
    min_rounds: int = 5,
    warm_up: int = 2,
    clock: Clock = wall_clock,
) -> dict[str, list[float]]:
    """The seconds of each round: every function once, after `warm_up` calls each, for about `seconds` in all."""
    for function in functions.values():
        for _ in range(warm_up):
            function()
    samples: dict[str, list[float]] = {name: [] for name in functions}
    start = time.perf_counter()
    rounds = 0
    while rounds < min_rounds or time.perf_counter() - start < seconds:
        for name, function in functions.items():
            samples[name].append(clock(function))
        rounds += 1
    return samples


def interleave(
    functions: Mapping[str, Thunk], *, seconds: float, min_rounds: int = 5, warm_up: int = 2
) -> dict[str, Timing]:
    """The results of `in_rounds`, summed up."""
    samples = in_rounds(functions, seconds=seconds, min_rounds=min_rounds, warm_up=warm_up)
    return {name: summary(values) for name, values in samples.items()}


def summary(samples: list[float]) -> Timing:
    """Of the seconds of each call, or of their ratios."""
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Timing(median(ordered), ordered[round(0.2 * last)], ordered[round(0.8 * last)], len(ordered))
