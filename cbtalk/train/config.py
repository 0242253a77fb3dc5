"""The training configuration: a YAML file, section by section; the defaults are the paper's (spec section 4)."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import yaml

from cbtalk.errors import ConfigError
from cbtalk.model.config import PRESETS, TalkerConfig
from cbtalk.options.parsing import parse
from cbtalk.train.config_ranges import check_ranges
from cbtalk.train.face_points import POINTS
from cbtalk.train.sections import TrainConfig

NOTHING = ("none", "null", "")  # in any case: the value of a setting that may be absent
T = TypeVar("T")


class _OnceEach(yaml.SafeLoader):
    """YAML's own loader takes the last of several values that a key has, without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands there twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def load_config(path: Path, settings: Sequence[str] = ()) -> TrainConfig:
    """Reads a YAML training configuration; relative paths in it are relative to the working directory.

    Args:
        settings: changes to it, as on the command line: `--run.steps`, `10`, ...; none, null and an empty text stand
            for nothing where a setting may be absent, as they do in the file.

    Raises:
        ConfigError: the file is absent or no YAML table, a key is unknown, or a value has the wrong type or is out of
            its range.
    """
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _OnceEach)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}; name a configuration file (.yaml)") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {error}") from error
    try:
        config = parse_config({} if values is None else values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    if settings:
        hint = "`cbtalk train CONFIG --settings` shows all settings"
        config = parse(TrainConfig, "cbtalk train CONFIG", _with_nothing(settings), default=config, hint=hint)
        check_config(config)
    return config


def parse_config(values: Any) -> TrainConfig:
    """The configuration of plain values, as YAML gives them. Raises ConfigError."""
    sections = {section.name: section for section in dataclasses.fields(TrainConfig)}
    _check_keys(values, set(sections), "the file")
    types = get_type_hints(TrainConfig)
    parsed: dict[str, Any] = {}
    for name, section in values.items():
        parsed[name] = _model(section) if name == "model" else _section(types[name], section, name)
    config = TrainConfig(**parsed)
    check_config(config)
    return config


def check_config(config: TrainConfig) -> None:
    """Raises ConfigError for numbers out of their ranges, and settings that contradict each other."""
    check_ranges(config)
    if config.run.batch_size % config.run.micro_batches:
        raise ConfigError(
            f"run.batch_size {config.run.batch_size} is not a multiple of run.micro_batches {config.run.micro_batches}"
        )
    if config.data.source == "files" and not config.data.workers:
        raise ConfigError("data.source files needs data.workers of 1 or more, the processes that read the files")
    if config.guidance.steps and not config.loss.guidance:
        raise ConfigError("guidance.steps needs loss.guidance: the keypoint detector has nothing else to learn from")
    if config.guidance.model is None and (users := face_users(config)):
        raise ConfigError(f"{', '.join(users)} needs guidance.model, MediaPipe's face mesh")
    if config.loss.guidance and config.model.keypoints < len(POINTS):
        raise ConfigError(f"loss.guidance needs model.keypoints of {len(POINTS)} or more")
    if config.loss.warped and not config.model.source_pixels:
        raise ConfigError("loss.warped needs model.source_pixels: without them, the source itself is not warped")


def face_users(config: TrainConfig) -> list[str]:
    """The settings in use that need the points of faces."""
    users = {
        "loss.guidance": config.loss.guidance,
        "loss.expression": config.loss.expression,
        "perceptual.faces": config.perceptual.faces,
        "data.expressive_pairs": config.data.expressive_pairs,
    }
    return [name for name, value in users.items() if value]


def _model(section: Any) -> TalkerConfig:
    """A preset's name, or a table of a `preset` and changes to it."""
    if isinstance(section, str):
        section = {"preset": section}
    if not isinstance(section, dict):
        raise ConfigError("model: a preset's name or a table is expected")
    preset = section.get("preset", "paper")
    if preset not in PRESETS:
        raise ConfigError(f"model.preset is {preset!r}; known: {', '.join(PRESETS)}")
    types = get_type_hints(TalkerConfig)
    changes = {
        key: None if key in types and _is_nothing(types[key], value) else value
        for key, value in section.items()
        if key != "preset"
    }
    try:
        return TalkerConfig.from_dict({**PRESETS[preset].to_dict(), **changes})
    except ConfigError as error:
        raise ConfigError(f"model: {error}") from error


def _is_nothing(kind: Any, value: Any) -> bool:
    """Whether a setting of a kind that may be absent is."""
    named = value is None or (isinstance(value, str) and value.strip().lower() in NOTHING)
    return named and type(None) in get_args(kind)


def _with_nothing(words: Sequence[str]) -> list[str]:
    """Settings of the command line with None, which the parser knows, for whatever stands for nothing."""
    sections = get_type_hints(TrainConfig)
    kinds = {f"--{part}.{name}": kind for part in sections for name, kind in get_type_hints(sections[part]).items()}
    found, last = [], ""
    for word in words:
        name, equals, value = word.partition("=")
        if word.startswith("--"):
            last = name.replace("-", "_").replace("__", "--", 1)
        if equals and _is_nothing(kinds.get(last), value):
            word = f"{name}=None"
        elif _is_nothing(kinds.get(last), word):
            word = "None"
        found.append(word)
    return found


def _section(kind: type[T], section: Any, name: str) -> T:
    types = get_type_hints(kind)
    _check_keys(section, set(types), name)
    return kind(**{key: _value(types[key], value, f"{name}.{key}") for key, value in section.items()})


def _check_keys(values: Any, known: set[str], where: str) -> None:
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: a table of keys and values is expected")
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ConfigError(f"unknown key {', '.join(unknown)} in {where}; known: {', '.join(sorted(known))}")


def _value(kind: Any, value: Any, name: str) -> Any:
    """`value` as `kind`; YAML reads `1e-4` as text, so numbers are taken from text too."""
    options = get_args(kind)
    if type(None) in options:
        return None if _is_nothing(kind, value) else _value(options[0], value, name)
    try:
        if get_origin(kind) is Literal and value in options:
            return value
        if (
            get_origin(kind) is tuple
            and isinstance(value, (list, tuple))
            and (... in options or len(value) == len(options))
        ):
            return tuple(_value(options[0], entry, name) for entry in value)
        if kind is float and not isinstance(value, bool):
            return float(value)
        if (kind is int or kind is bool) and type(value) is kind:
            return value
        if (kind is str or kind is Path) and isinstance(value, str):
            return kind(value)
    except (TypeError, ValueError):
        pass
    expected = " or ".join(options) if get_origin(kind) is Literal else getattr(kind, "__name__", str(kind))
    raise ConfigError(f"{name} is {value!r}; expected {expected}")
