"""All settings of a training configuration as text: name, value and meaning of each."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin, get_type_hints

from cbtalk.options.parsing import filled
from cbtalk.train.config_text import to_plain
from cbtalk.train.sections import TrainConfig

_INDENT = 8
_INTRODUCTION = (
    "Settings and their values. Each can be given as an argument as well as in the file; `none` stands for nothing, "
    "where there may be nothing. What is yes or no is written like --perceptual.faces or --perceptual.no-faces."
)


def settings_text(config: TrainConfig) -> str:
    """Section by section, each setting as it is written on the command line, its value, and below it what it is."""
    return "\n".join(_lines(config))


def meanings(kind: type) -> dict[str, str]:
    """The docstring of each field of a dataclass that has one."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found: dict[str, str] = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(text, ast.Expr):
            found[field.target.id] = " ".join(ast.literal_eval(text.value).split())
    return found


def _lines(config: TrainConfig) -> Iterator[str]:
    yield filled(_INTRODUCTION)
    types = get_type_hints(TrainConfig)
    for section, values in to_plain(config).items():
        kind, hints = meanings(types[section]), get_type_hints(types[section])
        yield f"\n{filled(f'{section}: ' + _first(types[section]), 2)}"
        for name, value in values.items():
            yield f"  --{section}.{name.replace('_', '-')} {_word(value)}".rstrip()
            if text := " ".join(filter(None, [kind.get(name), _choices(hints[name])])):
                yield filled(" " * _INDENT + text, _INDENT)


def _first(kind: type) -> str:
    """The first paragraph of a docstring."""
    return " ".join(inspect.cleandoc(kind.__doc__ or "").partition("\n\n")[0].split())


def _choices(hint: Any) -> str:
    kinds = [kind for kind in (hint, *get_args(hint)) if get_origin(kind) is Literal]
    return f"One of {', '.join(get_args(kinds[0]))}." if kinds else ""


def _word(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return " ".join(map(str, value))
    return "none" if value is None else str(value)
