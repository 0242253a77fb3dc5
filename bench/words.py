"""The figures in words: units, and how far a case is from what the machine can do, and why."""

from typing import Any

from bench.measure import GRAPH, OURS

Record = dict[str, Any]

_LIMITS = {
    "memory": "Memory sets the limit: {amount}B cannot be moved faster than in {limit}, at {rate}B/s",
    "arithmetic": "Arithmetic sets the limit: {amount}FLOP cannot be done faster than in {limit}, at {rate}FLOP/s",
    "exponentials": "Exponentials set the limit: {amount}exp cannot be computed faster than in {limit}, at {rate}exp/s",
}
_AMOUNTS = {"memory": "bytes", "arithmetic": "operations", "exponentials": "exponentials"}


def scaled(value: float) -> str:
    """Three digits and the prefix of a unit."""
    for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if value >= factor:
            return f"{value / factor:.3g} {prefix}"
    return f"{value / 1e3:.3g} k"


def duration(seconds: float) -> str:
    """Three digits in us, ms or s."""
    for factor, unit in ((1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:#.3g}".rstrip(".") + f" {unit}"
    return f"{seconds:#.3g}".rstrip(".") + " s"


def size(bytes_: float | None) -> str:
    """In MiB; a dash where torch's allocator saw nothing of it."""
    return f"{bytes_ / 2**20:.1f}" if bytes_ else "-"


def ratio(record: Record, side: str) -> float:
    """The time of a side as a multiple of ours."""
    return record["ratios"][side]["median"]


def calls(seconds: Record) -> str:
    """The cost of a call of each op."""
    return ", ".join(f"{name} {duration(cost)}" for name, cost in seconds.items())


def shares(record: Record) -> str:
    """The share of each stage."""
    return ", ".join(f"{name} {share:.1%}" for name, share in record.items())


def training(record: Record) -> str:
    """The step that was measured."""
    return f"{record['config']}, batch {record['batch']}, {record['precision']}"


def training_speed(record: Record) -> str:
    """Its speed."""
    seconds = record["seconds"]
    return (
        f"{duration(seconds)} a step, {record['batch'] / seconds:.2f} samples a second, "
        f"{record['eager'] / seconds:.2f} times as fast as in eager float32 with reference ops; "
        f"{scaled(record['operations'])}FLOP of products, {record['share']:.0%} of the bfloat16 matrix rate"
    )


def verdict(record: Record) -> str:
    """A sentence: how far a case is from the limit, and what sets the limit."""
    if "fail" in record:
        return f"FAIL: {record['fail']}"
    if "off" in record:
        return f"not measured: {record['off']}"
    floor = record["floor"]
    amount = record["work"][_AMOUNTS[floor["by"]]]
    limit = duration(floor["seconds"])
    why = _LIMITS[floor["by"]].format(amount=scaled(amount), limit=limit, rate=scaled(amount / floor["seconds"]))
    took, times = duration(floor["seconds"] / floor["share"]), 1 / floor["share"]
    return f"{took}, {times:.1f} times the least possible on this machine ({floor['share']:.0%} of the limit). {why}."


def sides(record: Record) -> list[str]:
    """The sides that were timed, ours first."""
    return sorted(record["times"], key=lambda side: side not in (OURS, OURS + GRAPH))


def absent(record: Record) -> dict[str, str]:
    """Peers without a time, and why."""
    return {name: text for name, text in record.get("remarks", {}).items() if name not in record.get("times", {})}
