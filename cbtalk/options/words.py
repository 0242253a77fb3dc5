"""The words with which help shows values, and values that are read from text."""

from collections.abc import Callable
from typing import Annotated, Any

from tyro.conf import arg
from tyro.constructors import PrimitiveConstructorSpec

from cbtalk.errors import CbtalkError

_NOTHING = ("None", "False", "")  # defaults that say nothing


def shown(metavar: str | None = None, **more: Any) -> Any:
    """Annotates an option: `metavar` stands for its value in help. `more` goes to `tyro.conf.arg`."""
    return arg(metavar=metavar, help_behavior_hint=_hint, **more)


def _hint(default: str) -> str:
    return "" if default in _NOTHING else f"(default: {default})"


FILE = shown("FILE")
FOLDER = shown("FOLDER")
SECONDS = shown("SECONDS")
PIXELS = shown("PIXELS")
NUMBER = shown("NUMBER")
SOURCE = shown("FILE", aliases=["-s"])
DRIVING = shown("FILE", aliases=["-d"])
OUTPUT = shown("FILE", aliases=["-o"])
OUTPUT_FOLDER = shown("FOLDER", aliases=["-o"])

Flag = Annotated[bool, shown()]


def by_text(read: Callable[[str], Any], metavar: str) -> Any:
    """Annotates an option whose values are written as one word, which `read` turns into a value or raises an error."""

    def from_words(words: list[str]) -> Any:
        try:
            return read(words[0])
        except CbtalkError as failure:
            raise ValueError(str(failure)) from failure

    return PrimitiveConstructorSpec(
        nargs=1,
        metavar=metavar,
        instance_from_str=from_words,
        is_instance=lambda value: True,
        str_from_instance=lambda value: [str(value)],
    )
