"""Lists of jobs as CSV, and all that is wrong with a list in one answer."""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from cbtalk.errors import InputError

_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}  # of tables that are no CSV in our sense


class Fault(NamedTuple):
    """A reason why work cannot begin: the line of its list, None where there is none, and one line of text."""

    line: int | None
    text: str


class Row(NamedTuple):
    """A line of a list: what it says, by name, without what it leaves empty."""

    line: int
    words: dict[str, str]


def read_csv(
    path: Path, required: Sequence[str], why_not: Callable[[str], str | None] = lambda name: None
) -> Iterator[Row | Fault]:
    """Rows by the names in the first line, which must name the `required` columns.

    A column for whose name `why_not` has a reason is a fault of that line, and left out of the rows.

    Raises InputError where the file as a whole cannot be read.
    """
    content = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    lines = csv.reader(content.splitlines(keepends=True), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        if not set(required) <= set(header):
            for separator, called in _SEPARATORS.items():
                if set(required) <= {name.strip() for name in ",".join(header).split(separator)}:
                    raise InputError(f"{path}: its columns are separated by {called}; they must be by commas")
            raise InputError(f"{path}: its first line must name the columns, {' and '.join(required)} among them")
        if len(set(header)) < len(header):
            raise InputError(f"{path}: its first line names a column twice")
        reasons = {name: reason for name in header if name and (reason := why_not(name)) is not None}
        yield from (Fault(lines.line_num, f"column {name}: {reason}") for name, reason in reasons.items())
        for cells in lines:
            if len(cells) > len(header):
                text = f"{len(cells)} cells in {len(header)} columns; quote what has a comma in it"
                yield Fault(lines.line_num, text)
            elif any(cell.strip() for cell in cells):
                words = {name: cell for name, cell in zip(header, cells, strict=False) if cell.strip()}
                words = {name: word for name, word in words.items() if name not in reasons}
                yield Row(lines.line_num, words)
    except csv.Error as failure:
        raise InputError(f"{path}: not a CSV file that can be read ({failure})") from failure


def refuse(name: str, faults: Sequence[Fault]) -> None:
    """Tells every fault on standard error, and then raises InputError; nothing where there is none.

    Args:
        name: of the list, for the messages.
    """
    for fault in sorted(faults, key=lambda fault: fault.line or 0):
        where = f"{name}:{fault.line}: " if fault.line is not None else ""
        print(f"error: {where}{' '.join(fault.text.split())}", file=sys.stderr)
    if faults:
        raise InputError(f"{name}: {len(faults)} {'fault' if len(faults) == 1 else 'faults'}; nothing was begun")
