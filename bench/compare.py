"""Changes between two runs: ratios to peers, which a faster or slower machine leaves as they are."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from bench.model import BASELINE

NOISE = 0.05  # two ratios nearer than this are the same, however steady each run was

Record = dict[str, Any]


class Change(NamedTuple):
    """A ratio of a side's time to ours, before and now."""

    case: str
    side: str
    before: float
    now: float


class _Ratio(NamedTuple):
    middle: float
    low: float
    high: float


def changes(base: Record, results: Record) -> list[Change]:
    """The ratios that both runs have and whose quantiles (20 to 80 %) no longer meet."""
    before, now = dict(_ratios(base)), dict(_ratios(results))
    both = [key for key in now if key in before]
    return [Change(*key, before[key].middle, now[key].middle) for key in both if _apart(before[key], now[key])]


def _apart(one: _Ratio, two: _Ratio) -> bool:
    meet = one.low <= two.high and two.low <= one.high
    return not meet and abs(two.middle / one.middle - 1) > NOISE


def _ratios(results: Record) -> Iterator[tuple[tuple[str, str], _Ratio]]:
    for record in results.get("ops", []):
        for side, ratio in record.get("ratios", {}).items():
            yield (record["case"], side), _Ratio(ratio["median"], ratio["low"], ratio["high"])
    if "model" in results:
        times = results["model"]["times"]
        for side in times:
            if side != BASELINE:
                yield (f"model {results['model']['preset']}, {side}", BASELINE), _ratio(times[BASELINE], times[side])


def _ratio(side: Record, ours: Record) -> _Ratio:
    return _Ratio(side["median"] / ours["median"], side["low"] / ours["high"], side["high"] / ours["low"])
