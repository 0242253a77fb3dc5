"""The state of a batch as a table, CSV, JSON or a page."""

import csv
import html
import io
import json
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from cbtalk.atomic import atomic_path
from cbtalk.batch.ledger import STATES, Entry
from cbtalk.errors import OutputError

SUFFIXES = (".csv", ".json", ".html")
_SHOWN = 20  # jobs that a table in a terminal lists
_COLUMNS = ("output", "state", "attempts", "frames", "seconds", "error")


def table(entries: Sequence[Entry]) -> str:
    """Counts of jobs by state, and those that failed or run, for a terminal."""
    states = Counter(entry.state for entry in entries)
    frames, seconds = totals(entries)
    lines = [f"{states[state]:6d} {state}" for state in STATES]
    lines.append(f"{frames} frames in {seconds:.1f} seconds of work")
    listed = [entry for entry in entries if entry.state in ("failed", "running")]
    for entry in listed[:_SHOWN]:
        lines.append(f"{entry.state:8s} {entry.output}{f': {entry.error}' if entry.error else ''}")
    if len(listed) > _SHOWN:
        lines.append(f"and {len(listed) - _SHOWN} more: --report FILE.csv lists them all")
    return "\n".join(lines)


def totals(entries: Sequence[Entry]) -> tuple[int, float]:
    """Frames and seconds of the jobs that are done."""
    return sum(entry.frames or 0 for entry in entries), sum(entry.seconds or 0.0 for entry in entries)


def check_report(path: Path) -> None:
    """Raises OutputError for a report that cannot be written, before any work."""
    if path.suffix.lower() not in SUFFIXES:
        raise OutputError(f"{path}: a report's name must end in {', '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: its folder does not exist; create it first")


def write_report(path: Path, entries: Sequence[Entry]) -> None:
    """Writes all jobs to a .csv, .json or .html file, complete or not at all."""
    check_report(path)
    make = {".csv": _csv, ".json": _json, ".html": _html}[path.suffix.lower()]
    with atomic_path(path) as temporary:
        temporary.write_text(make(entries), encoding="utf-8", errors="backslashreplace", newline="")


def _csv(entries: Sequence[Entry]) -> str:
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(Entry._fields)
    writer.writerows(entries)
    return text.getvalue()


def _json(entries: Sequence[Entry]) -> str:
    return json.dumps([entry._asdict() for entry in entries], indent=1) + "\n"


_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>cbtalk batch</title>
<style>
body {{ font: 14px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 70em; padding: 0 1em; color: #222 }}
table {{ border-collapse: collapse; width: 100% }}
th, td {{ text-align: left; padding: .3em .8em; border-bottom: 1px solid #ddd; overflow-wrap: anywhere }}
th {{ border-bottom: 2px solid #888 }}
td.number {{ text-align: right; font-variant-numeric: tabular-nums }}
.failed td {{ background: #fdecea }} .done td:nth-child(2) {{ color: #18794e }}
</style>
<h1>Batch</h1><p>{summary}</p>
<table><thead><tr>{head}</tr></thead><tbody>
{rows}
</tbody></table></html>
"""


def _html(entries: Sequence[Entry]) -> str:
    states = Counter(entry.state for entry in entries)
    frames, seconds = totals(entries)
    counts = ", ".join(f"{states[state]} {state}" for state in STATES)
    summary = f"{counts}; {frames} frames in {seconds:.1f} seconds of work; {time.strftime('%Y-%m-%d %H:%M')}"
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    rows = "\n".join(f'<tr class="{entry.state}">{_cells(entry)}</tr>' for entry in entries)
    return _PAGE.format(summary=summary, head=head, rows=rows)


def _cells(entry: Entry) -> str:
    cells = []
    for name in _COLUMNS:
        value = getattr(entry, name)
        number = isinstance(value, int | float)
        text = "" if value is None else f"{value:.1f}" if isinstance(value, float) else html.escape(str(value))
        cells.append(f'<td class="number">{text}</td>' if number else f"<td>{text}</td>")
    return "".join(cells)
