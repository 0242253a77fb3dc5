"""The table of an ablation, in Markdown, CSV and JSON."""

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cbtalk.atomic import write_text

COLUMNS = ("variant", "changed", "parameters", "steps")


class Row(NamedTuple):
    """One variant: its parameters in millions, its training steps and the mean figures of its evaluation."""

    variant: str
    changed: str
    parameters: float
    steps: int
    figures: dict[str, float]


def write_table(folder: Path, title: str, rows: Sequence[Row]) -> None:
    """Writes ablation.md, .csv and .json of the rows that there are so far."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    plain = [_plain(row) for row in rows]
    write_text(folder / "ablation.json", json.dumps(plain, indent=1) + "\n")
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, [*COLUMNS, *names])
    table.writeheader()
    table.writerows(plain)
    write_text(folder / "ablation.csv", text.getvalue())
    write_text(folder / "ablation.md", markdown(title, rows))


def markdown(title: str, rows: Sequence[Row]) -> str:
    """The table under its title."""
    names = list(dict.fromkeys(name for row in rows for name in row.figures))
    lines = [title, "", _line(["variant", "changed", "parameters (M)", "steps", *names])]
    lines.append(_line(["---", "---", *["---:"] * (2 + len(names))]))
    for row in rows:
        figures = [f"{row.figures[name]:.4f}" if name in row.figures else "-" for name in names]
        lines.append(_line([row.variant, row.changed, f"{row.parameters:.2f}", str(row.steps), *figures]))
    return "\n".join(lines) + "\n"


def _plain(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in COLUMNS} | row.figures


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
