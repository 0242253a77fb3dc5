"""The figures on the terminal."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench import words
from bench.compare import Change
from bench.measure import GRAPH, OURS
from bench.model import BASELINE

Record = dict[str, Any]

_WIDTH = 150  # where the output is no terminal
console = Console(width=None if sys.stdout.isatty() else _WIDTH, highlight=False, soft_wrap=False)


def progress(text: str) -> None:
    """The case that is being measured, on a terminal only."""
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:100]}", end="", file=sys.stderr, flush=True)


def show_machine(facts: Mapping[str, object]) -> None:
    """The header."""
    console.print("\n".join(f"{key}: {value}" for key, value in facts.items()), markup=False)


def show(results: Record) -> None:
    """Ceilings and all tables."""
    progress("")
    ceilings = results["ceilings"]
    console.print(
        f"ceilings: copy {ceilings['copy'] / 1e9:.1f} GB/s"
        + "".join(f", {bytes_ / 2**20:g} MiB {rate / 1e9:.0f}" for bytes_, rate in ceilings["copies"][::3])
        + f"; products {ceilings['float32'] / 1e9:.0f} GFLOP/s in float32, {ceilings['bfloat16'] / 1e9:.0f} in bfloat16"
        + f"; {ceilings['exponentials'] / 1e9:.1f} billion exponentials a second"
    )
    if "ops" in results:
        for record in results["ops"]:
            console.print(case_table(record))
        console.print("\n".join(dict.fromkeys(_absent(results["ops"]))), markup=False)
    if "calls" in results:
        console.print(f"cost of a call on the CPU: {words.calls(results['calls'])}")
    if "model" in results:
        console.print(model_table(results["model"]))
        console.print(stage_table(results["model"]))
        console.print(training_line(results["training"]))
    if "batch" in results:
        console.print(batch_table(results["batch"]))
    console.print(f"{results['seconds']:.0f} s in all")


def case_table(record: Record) -> Table | Text:
    """A row a side; ours with what sets its limit."""
    for kind in ("fail", "off"):
        if kind in record:
            return Text(f"{record['case']}\n  {kind.upper()}: {record[kind]}", style="red" if kind == "fail" else "")
    table = _table("", "time", "20 .. 80 %", "x ours", "GB/s", "GFLOP/s", "of the limit", "MiB", "remark")
    table.title, table.title_justify, table.title_style = record["case"], "left", "bold"
    for column, width in zip(table.columns, (28, 8, 20, 6, 6, 7, 16, 6), strict=False):
        column.min_width = width
    for side in words.sides(record):
        table.add_row(*_side(record, side))
    return table


def _side(record: Record, side: str) -> Iterator[str]:
    timing, floor = record["times"][side], record["floor"]
    ours = side in (OURS, OURS + GRAPH)
    yield f"  {side}"
    yield words.duration(timing["median"])
    yield f"{words.duration(timing['low'])} .. {words.duration(timing['high'])}"
    yield "" if ours else f"{words.ratio(record, side):.2f}"
    share = floor["seconds"] / timing["median"]
    yield f"{record['work']['bytes'] / timing['median'] / 1e9:.1f}"
    yield f"{record['work']['operations'] / timing['median'] / 1e9:.0f}" if record["work"]["operations"] else "-"
    yield f"{share:.0%} {floor['by']}" if ours else f"{share:.0%}"
    yield words.size(record["peaks"].get(side))
    yield record["remarks"].get(side, "")


def _absent(records: Sequence[Record]) -> Iterator[str]:
    for record in records:
        for name, reason in words.absent(record).items():
            yield f"{record['op']}: {name}: {reason}"


def model_table(model: Record) -> Table:
    """Seconds a frame, and the share of the baseline's time."""
    table = _table(f"model {model['preset']}", "a frame", "20 .. 80 %", "frames a second", "of the baseline")
    baseline = model["times"][BASELINE]["median"]
    for name, timing in model["times"].items():
        spread = f"{words.duration(timing['low'])} .. {words.duration(timing['high'])}"
        seconds = timing["median"]
        table.add_row(name, words.duration(seconds), spread, f"{1 / seconds:.2f}", f"{seconds / baseline:.2f}")
    difference = model["largest difference of the images"]
    table.caption = f"largest difference of an image from the baseline's: {difference:.1e} of its largest value"
    return table


def stage_table(model: Record) -> Table:
    """The stages of a frame and their shares of its time."""
    table = _table("stage", "batch", "a frame", "frames a second", "GFLOP", "of the matrix rate", "MiB")
    for name, seconds in model["media"].items():
        table.add_row(name, "", words.duration(seconds), f"{1 / seconds:.0f}", "", "", "")
    for name, seconds in model["once a source"].items():
        table.add_row(f"{name}, once a source", "1", words.duration(seconds), "", "", "", "")
    for row in model["stages"]:
        share, operations = f"{row['share']:.0%}", f"{row['operations'] / 1e9:.2f}"
        rate, seconds = f"{1 / row['seconds']:.1f}", words.duration(row["seconds"])
        table.add_row(row["stage"], str(row["batch"]), seconds, rate, operations, share, words.size(row["peak"]))
    return table


def batch_table(batch: Record) -> Table:
    """A row a batch: frames a second, and the share of what the model alone does with as many processes."""
    columns = ("precision", "workers", "in all", "before the first job", "frames a second", "then", "the model alone")
    table = _table("jobs", *columns, "then, of it")
    for row in batch["rows"]:
        rates = row["frames"] / row["seconds"], row["running"], row["floor"]
        table.add_row(
            row["jobs"],
            row["precision"],
            str(row["workers"]),
            words.duration(row["seconds"]),
            words.duration(row["start"]),
            *(f"{rate:.2f}" for rate in rates),
            f"{row['running'] / row['floor']:.0%}",
        )
    table.caption = f"of a worker's time, one thread: {words.shares(batch['shares'])}"
    return table


def training_line(training: Record) -> str:
    """A step and its parts."""
    parts = ", ".join(f"{name} {words.duration(seconds)}" for name, seconds in training["parts"].items())
    return f"training step ({words.training(training)}): {parts}\n{words.training_speed(training)}"


def show_changes(changes: Sequence[Change]) -> None:
    """The findings of --base."""
    for change in changes:
        console.print(f"{change.case}: {change.side}: {change.before:.2f} x ours before, {change.now:.2f} x now")
    console.print(f"{len(changes)} ratios changed beyond the noise")


def _table(first: str, *columns: str) -> Table:
    table = Table(first, box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, justify="left" if column == "remark" else "right")
    return table
