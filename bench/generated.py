"""Parts of Markdown pages that a command writes, between two marks that name it."""

from collections.abc import Iterable
from pathlib import Path


def replaced(page: str, command: str, lines: Iterable[str]) -> str:
    """A page's text with the part that the command writes, `lines`, anew."""
    begin, end = (f"<!-- {command}: {word} -->\n" for word in ("begin", "end"))
    head, rest = page.split(begin)
    return head + begin + "".join(f"{line}\n" for line in lines) + end + rest.split(end)[1]


def write_part(path: Path, command: str, lines: Iterable[str]) -> None:
    """Write the command's part of a page."""
    path.write_text(replaced(path.read_text(encoding="utf-8"), command, lines), encoding="utf-8")
