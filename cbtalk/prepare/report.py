"""The report: every clip and everything left out, as a table in the output folder and in a few lines."""

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from cbtalk.atomic import atomic_path
from cbtalk.prepare.ledger import Ledger
from cbtalk.prepare.stretch import Reason, Stretch

FILE = "report.csv"
_COLUMNS = (
    *("video", "clip", "reason", "start", "end", "seconds", "frames", "x", "y", "side", "face", "sharpness", "motion"),
    "note",
)


@dataclass(frozen=True)
class Row:
    """A stretch of a raw video, or with none a video that cannot be read; note: why, or what is wrong with it."""

    video: str
    stretch: Stretch
    note: str = ""


def rows_of(ledger: Ledger) -> list[Row]:
    """All that is known of all videos that were begun, in the order of their names."""
    rows = []
    for entry in ledger.entries():
        stretches = [stretch for _, stretch, finished in ledger.stretches(entry.name) if finished]
        if entry.state == "failed":
            stretches.append(Stretch(0.0, 0.0, reason=Reason.UNREADABLE))
        rows += [Row(entry.name, stretch, entry.note) for stretch in stretches]
    return rows


def write_report(path: Path, rows: list[Row]) -> None:
    """The rows as a CSV file; times in seconds, lengths in px of the raw video, x and y the centre of the square."""
    with (
        atomic_path(path) as temporary,
        temporary.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        table = csv.writer(file)
        table.writerow(_COLUMNS)
        table.writerows(_cells(row) for row in rows)


def summary(rows: list[Row]) -> list[str]:
    """The number of clips, and how much is left out for which reason."""
    clips = [row.stretch for row in rows if row.stretch.reason is None]
    seconds = sum(clip.seconds for clip in clips)
    lines = [f"{len(clips)} clips, {seconds:.1f} s, of {len({row.video for row in rows})} videos"]
    counts = Counter(row.stretch.reason for row in rows)
    for reason in Reason:
        if count := counts[reason]:
            lost = sum(row.stretch.seconds for row in rows if row.stretch.reason is reason)
            lines.append(f"left out: {reason}: {count}" + (f", {lost:.1f} s" if lost else ""))
    return lines


def _cells(row: Row) -> list[str]:
    stretch, square = row.stretch, row.stretch.square
    numbers = [stretch.start, stretch.end, stretch.seconds]
    lengths = [None, None, None] if square is None else [square.x, square.y, square.side]
    return [
        row.video,
        stretch.name or "",
        stretch.reason or "",
        *(f"{number:.3f}" for number in numbers),
        "" if stretch.frames is None else str(stretch.frames),
        *("" if length is None else f"{length:.1f}" for length in (*lengths, stretch.face)),
        *("" if figure is None else f"{figure:.3f}" for figure in (stretch.sharpness, stretch.motion)),
        row.note,
    ]
