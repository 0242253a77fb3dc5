"""Arguments of a command turned into values by tyro; a wrong one is an error of one line."""

import inspect
import io
import re
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from functools import partial, wraps
from shutil import get_terminal_size
from typing import Any, TextIO

import tyro
from tyro.conf import DisallowNone, FlagCreatePairsOff, HelptextFromCommentsOff, OmitArgPrefixes

from cbtalk.errors import ConfigError

COMPLETION = "--tyro-"  # tyro's own arguments begin so
WIDEST = 120  # columns of a text
_MARKERS = (DisallowNone, FlagCreatePairsOff, HelptextFromCommentsOff, OmitArgPrefixes)
_DESCRIPTION = "DESCRIPTION"
_DEBUG = "Add --debug to see where an error comes from."
_EMPTY = re.compile(r"^[│|] +[│|]\n", re.MULTILINE)  # after a line that is just full
_BORDER = re.compile(r"^[│|] ?(.*?) *[│|]$")


def parse_command(
    function: Callable[..., int | None], prog: str, arguments: Sequence[str]
) -> Callable[..., int | None]:
    """The call of a command that the arguments ask for, still to be made. Raises as `parse` does."""
    return parse(_deferred(function), prog, arguments, _described(function), config=_MARKERS)


def write_completion(functions: Mapping[str, Callable[..., Any]], prog: str, arguments: Sequence[str]) -> None:
    """Serve tyro's arguments for completion in shells, with all commands as subcommands; raises SystemExit."""
    commands = {name: _deferred(function) for name, function in functions.items()}
    tyro.extras.subcommand_cli_from_dict(commands, prog=prog, args=arguments, config=_MARKERS)


def parse(
    target: Callable[..., Any],
    prog: str,
    arguments: Sequence[str],
    description: str = "",
    *,
    hint: str | None = None,
    **more: Any,
) -> Any:
    """The value that `target` makes of the arguments.

    Asked for help, it prints that, with the description, and raises SystemExit. `hint` says where what there
    is can be seen, by default in the help; `more` goes to `tyro.cli`.

    Raises:
        ConfigError: an argument is missing, unknown or cannot be read.
    """
    shown, told = _Kept(sys.stdout), io.StringIO()
    try:
        with redirect_stdout(shown), redirect_stderr(told):
            return tyro.cli(target, prog=prog, args=arguments, description=_DESCRIPTION, **more)
    except SystemExit as end:
        if not end.code:
            print(_EMPTY.sub("", shown.getvalue()).replace(_DESCRIPTION, description), end="")
            raise
        raise ConfigError(f"{_one_line(told.getvalue())} ({hint or f'`{prog} --help` shows the options'})") from None


class _Kept(io.StringIO):
    """Text for a terminal, kept: tyro, which would break up a description's lines, gets a word that stands for it."""

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]  # io.StringIO has none
        """The terminal's, for the sake of the boxes around the options."""
        return (self._terminal.encoding or "ascii").lower()

    def isatty(self) -> bool:
        """True where tyro may use colours."""
        return self._terminal.isatty()


def _described(function: Callable[..., Any]) -> str:
    """The docstring of a command but for its arguments, its paragraphs as wide as the terminal."""
    text = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:")[0].strip()
    parts = [part if part.startswith("    ") else filled(part) for part in [*text.split("\n\n"), _DEBUG]]
    return "\n\n".join(parts).replace("Examples:\n\n", "Examples:\n")


def filled(text: str, indent: int = 0) -> str:
    """A paragraph as wide as the terminal, its lines but the first indented."""
    width = min(get_terminal_size().columns, WIDEST)
    return textwrap.fill(text, width, subsequent_indent=" " * indent, break_on_hyphens=False)


def _deferred(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function as one that returns its call, which then is made where errors of the parser are no longer caught."""

    @wraps(function)
    def deferred(*args: Any, **kwargs: Any) -> Callable[[], Any]:
        return partial(function, *args, **kwargs)

    return deferred


def _one_line(box: str) -> str:
    """The message of one of tyro's boxes: its first part, and the options that it suggests instead."""
    parts: list[list[str]] = [[]]
    for line in box.splitlines():
        inner = _BORDER.match(line)
        if inner is not None and inner[1].strip("─-"):
            parts[-1].append(inner[1])
        elif inner is not None:
            parts.append([])
    message = _joined(parts[0])
    suggested = [part for part in parts if part and part[0].startswith("Perhaps you meant")]
    return "; ".join([message, *(_joined(part)[0].lower() + _joined(part)[1:] for part in suggested)])


def _joined(lines: Sequence[str]) -> str:
    """Lines that belong together; what is indented twice explains an option and is left out."""
    text, options = "", []
    for line in lines:
        if line.startswith("    ") and not line.startswith("     "):
            options.append(line.rpartition(", ")[2].strip())
        elif not line.startswith(" "):
            text += f" {line.strip()}"
    return " ".join([text.strip(), ", ".join(options)]).strip().removeprefix("Error parsing ")
