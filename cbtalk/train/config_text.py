"""Training configurations as plain values and as YAML, and what differs between two of them."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cbtalk.atomic import write_text
from cbtalk.train.sections import TrainConfig


def to_plain(config: TrainConfig) -> dict[str, dict[str, Any]]:
    """A configuration as `parse_config` takes it: tables of numbers, text and lists, with all defaults."""
    plain = {
        section.name: {name: _plain(value) for name, value in vars(getattr(config, section.name)).items()}
        for section in dataclasses.fields(config)
        if section.name != "model"
    }
    return {"model": {name: _plain(value) for name, value in config.model.to_dict().items()}, **plain}


def write_config(path: Path, config: TrainConfig) -> None:
    """Writes a configuration as YAML, with all defaults: the same run, whatever later versions take for granted."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, yaml.safe_dump(to_plain(config), sort_keys=False))


def changes(before: Mapping[str, Mapping[str, Any]], now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """The settings that differ between two plain configurations, as lines; those that one of them lacks are left out.

    A resumed run takes all of them over but the model's, which cannot change.
    """
    return [
        f"{section}.{name} {table[name]} -> {value}"
        for section, table in before.items()
        for name, value in now.get(section, {}).items()
        if name in table and table[name] != value
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return [_plain(entry) for entry in value]
    return str(value) if isinstance(value, Path) else value
