"""A run as one HTML page that needs no network: what is how far from its limit, and why."""

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Any

from bench import words
from bench.measure import ours_beside
from bench.model import BASELINE

Record = dict[str, Any]

_STYLE = """
body { font: 15px/1.45 sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #222; }
table { border-collapse: collapse; margin: 1em 0; } tr { border-bottom: 1px solid #ddd; }
td, th { padding: .2em .7em; text-align: left; vertical-align: top; }
svg { max-width: 100%; height: auto; } .fail { color: #b00; font-weight: bold; }
"""
_READING = """Every op has a limit on this machine: the time in which the memory can move what the op must read and
write once, the arithmetic units can do the multiplications and additions that it cannot do without, and its
exponentials can be computed, whichever takes longest. The rates behind it were measured in this run. 100 % cannot be
beaten; a small share leaves room. A result is compared with float64 before it is timed; a wrong one gets no time. For
conv3x3 the limit is that of its own algorithm, minimal filtering, which multiplies less than a plain convolution."""


def page(results: Record) -> str:
    """The page of what `bench.run` writes as JSON."""
    body = "\n".join(_body(results))
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>cbtalk: measurements</title>'
        f"<style>{_STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _body(results: Record) -> Iterator[str]:
    yield "<h1>cbtalk: measurements</h1>"
    yield from _table(["machine", ""], [(key, str(value)) for key, value in results["machine"].items()])
    yield from _ceilings(results["ceilings"])
    if "ops" in results:
        yield from _ops(results["ops"], results["ceilings"])
    if "calls" in results:
        yield "<h2>The cost of a call</h2><p>From Python to the result, on the CPU, on the smallest inputs.</p>"
        yield from _table(["op", "a call"], [(name, words.duration(cost)) for name, cost in results["calls"].items()])
    if "model" in results:
        yield from _model(results["model"], results["training"])
    if "batch" in results:
        yield from _batch(results["batch"])


def _batch(batch: Record) -> Iterator[str]:
    yield f"<h2>Batches of {batch['weights']}</h2><p>Frames a second, of the whole command and from its first job on,"
    yield "beside the model alone in as many processes.</p>"
    yield from _table(
        ["jobs", "precision", "workers", "in all", "from the first job on", "the model alone"],
        [
            (
                row["jobs"],
                row["precision"],
                str(row["workers"]),
                f"{row['frames'] / row['seconds']:.2f}",
                f"{row['running']:.2f}",
                f"{row['floor']:.2f}",
            )
            for row in batch["rows"]
        ],
    )
    yield f"<p>Of a worker's time, with one thread: {words.shares(batch['shares'])}.</p>"


def _ceilings(ceilings: Record) -> Iterator[str]:
    rows = [
        ("large copy", f"{ceilings['copy'] / 1e9:.1f} GB/s, read and written"),
        *((f"copy, {bytes_ / 2**20:g} MiB", f"{rate / 1e9:.1f} GB/s") for bytes_, rate in ceilings["copies"][::3]),
        *((f"products in {name}", f"{ceilings[name] / 1e9:.0f} GFLOP/s") for name in ("float32", "bfloat16")),
        ("exponentials", f"{ceilings['exponentials'] / 1e9:.1f} billion a second"),
    ]
    yield "<h2>What this machine can do</h2>"
    yield from _table(["best measured", ""], rows)


def _ops(records: Sequence[Record], ceilings: Record) -> Iterator[str]:
    from bench import plots  # matplotlib takes a second to import

    timed = [record for record in records if "times" in record]
    yield f"<h2>How far each op is from its limit</h2><p>{_READING}</p>"
    yield from _table(["op", "how far, and why"], [(record["case"], words.verdict(record)) for record in records])
    if timed:
        yield plots.shares(timed)
        yield plots.roofline(timed, ceilings)
        key = "; ".join(f"{n}: {escape(case)}" for n, case in enumerate(plots.roofline_key(timed), 1))
        yield f"<p>{key}. Ops that do little but move data have no place on a roofline: their limit is the memory.</p>"
        yield "<h2>Against what one would use instead</h2>"
        for op in dict.fromkeys(record["op"] for record in timed):
            yield plots.against_peers([record for record in timed if record["op"] == op])
        yield from _sides(timed)


def _sides(records: Sequence[Record]) -> Iterator[str]:
    rows = []
    for record in records:
        for side in words.sides(record):
            timing = record["times"][side]
            spread = f"{words.duration(timing['low'])} .. {words.duration(timing['high'])}"
            against = "" if side == ours_beside(side) else f"{words.ratio(record, side):.2f}"
            peak, remark = words.size(record["peaks"].get(side)), record["remarks"].get(side, "")
            rows.append((record["case"], side, words.duration(timing["median"]), spread, against, peak, remark))
        rows += [(record["case"], name, "", "", "", "", reason) for name, reason in words.absent(record).items()]
    yield from _table(["case", "side", "median", "20 .. 80 %", "times ours", "MiB at the peak", "remark"], rows)


def _model(model: Record, training: Record) -> Iterator[str]:
    from bench import plots

    yield f"<h2>The whole model: {escape(model['preset'])}</h2>"
    baseline = model["times"][BASELINE]["median"]
    times = [(name, timing["median"]) for name, timing in model["times"].items()]
    whole = [(name, words.duration(t), f"{1 / t:.2f}", f"{t / baseline:.2f}") for name, t in times]
    yield from _table(["", "a frame", "frames a second", "of the baseline"], whole)
    yield plots.stages(model)
    beside = [*model["media"].items(), *((f"{name}, once a source", t) for name, t in model["once a source"].items())]
    rows = [(name, "", words.duration(t), f"{1 / t:.0f}", "", "", "") for name, t in beside]
    for row in model["stages"]:
        t, share = row["seconds"], f"{row['share']:.0%}"
        figures = f"{1 / t:.1f}", f"{row['operations'] / 1e9:.2f}", share, words.size(row["peak"])
        rows.append((row["stage"], str(row["batch"]), words.duration(t), *figures))
    heads = ["stage", "batch", "a frame", "frames a second", "GFLOP", "share of the matrix rate", "MiB at the peak"]
    yield from _table(heads, rows)
    kind = f"{words.training(training)}, synthetic clips. {words.training_speed(training)}."
    yield f"<h2>A training step</h2><p>{escape(kind)}</p>"
    parts = [*training["parts"].items(), ("in all", training["seconds"])]
    yield from _table(["part", "time"], [(name, words.duration(t)) for name, t in parts])


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield "<table><tr>" + "".join(f"<th>{escape(head)}</th>" for head in heads) + "</tr>"
    for row in rows:
        cells = (f"<td{' class=fail' if cell.startswith('FAIL') else ''}>{escape(cell)}</td>" for cell in row)
        yield f"<tr>{''.join(cells)}</tr>"
    yield "</table>"
