"""The options of a render from words: names as on the command line, values as text."""

import dataclasses
import types
import typing
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cbtalk.errors import CbtalkError, InputError
from cbtalk.options.places import Crop, FaceChoice, parse_choice, parse_crop
from cbtalk.render.options import DrivingOptions, RenderOptions

_DRIVING = ("crop", "face")  # options of both the source and the driving video: driving_crop is that of the latter


def option_names() -> list[str]:
    """Names of all options, with underscores."""
    return sorted(_parsers())


def why_unknown(word: str) -> str | None:
    """The reason why a word names no option, with the one that may be meant; None where it names one."""
    name, names = word.replace("-", "_"), option_names()
    if name in names:
        return None
    close = get_close_matches(name, names, n=1)
    return f"no such option; did you mean {close[0]}?" if close else f"no such option; there are {', '.join(names)}"


def parse_options(words: Mapping[str, object]) -> RenderOptions:
    """The options that some words ask for, the rest at their defaults; dashes and underscores are the same.

    Text is read; numbers, True and False are taken as they are, and None is the default.

    Raises InputError or ConfigError for a name that is none, a value that cannot be, or values that contradict.
    """
    parsers = _parsers()
    source: dict[str, Any] = {}
    driving: dict[str, Any] = {}
    for word, value in words.items():
        name = word.replace("-", "_")
        if reason := why_unknown(word):
            raise InputError(f"{word}: {reason}")
        of_driving, field, parse = parsers[name]
        if value is None:
            continue
        try:
            (driving if of_driving else source)[field] = parse(value.strip()) if isinstance(value, str) else value
        except ValueError as failure:
            raise InputError(f"{word} {value!r}: must be {failure}") from failure
        except CbtalkError as failure:
            raise type(failure)(f"{word}: {failure}") from failure
    return RenderOptions(**source, driving=DrivingOptions(**driving))


@cache
def _parsers() -> dict[str, tuple[bool, str, Callable[[str], Any]]]:
    """By name: whether it is of the driving video, its field, and the function that reads it."""
    found = {}
    for owner in (RenderOptions, DrivingOptions):
        hints = typing.get_type_hints(owner)
        of_driving = owner is DrivingOptions
        for field in dataclasses.fields(owner):
            if field.name != "driving":
                name = f"driving_{field.name}" if of_driving and field.name in _DRIVING else field.name
                found[name] = (of_driving, field.name, _parser(hints[field.name]))
    return found


def _parser(hint: Any) -> Callable[[str], Any]:
    """The function that reads a type; it raises ValueError, whose text says what the value must be."""
    members = set(get_args(hint)) if get_origin(hint) in (types.UnionType, typing.Union) else {hint}
    members -= {type(None)}
    words = [word for member in members if get_origin(member) is Literal for word in get_args(member)]
    if set(get_args(Crop)) <= members:
        return parse_crop
    if set(get_args(FaceChoice)) <= members:
        others = [word for word in words if word != "largest"]
        return lambda text: text if text in others else parse_choice(text)
    rest = {member for member in members if get_origin(member) is not Literal}
    read = _PLAIN[rest.pop()] if rest else _no_word

    def parse(text: str) -> Any:
        if text in words:
            return text
        try:
            return read(text)
        except ValueError as failure:
            raise ValueError(" or ".join([*words, *filter(None, [str(failure)])])) from failure

    return parse


def _no_word(text: str) -> Any:
    raise ValueError


def _read_bool(text: str) -> bool:
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("true or false")
    return words[text.lower()]


def _read_number(kind: Callable[[str], Any], name: str) -> Callable[[str], Any]:
    def read(text: str) -> Any:
        try:
            return kind(text)
        except ValueError as failure:
            raise ValueError(name) from failure

    return read


_PLAIN: dict[Any, Callable[[str], Any]] = {
    bool: _read_bool,
    int: _read_number(int, "a whole number"),
    float: _read_number(float, "a number"),
    Path: Path,
    str: str,
}
