"""The ablation run: variant after variant trained, evaluated, and entered in the table."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tqdm import tqdm

from cbtalk import evaluate, train
from cbtalk.ablate.table import Row, write_table
from cbtalk.ablate.variants import Variant, variants
from cbtalk.atomic import write_text
from cbtalk.digest import combined
from cbtalk.errors import ConfigError, Interruption
from cbtalk.model.checkpoint import without_storage
from cbtalk.options.evaluate import Sampling
from cbtalk.train.config_text import to_plain
from cbtalk.train.files import check_files
from cbtalk.train.sections import TrainConfig

RESULT_NAME = "result.json"


def compare_variants(
    config: TrainConfig,
    data: Path,
    output: Path,
    *,
    only: Sequence[str] = (),
    portraits: Sequence[Path] = (),
    models: Path | None = None,
    every: int = Sampling.every,
    batch_size: int = Sampling.batch_size,
) -> list[Row]:
    """Trains and evaluates variants of a configuration; started again, it goes on where it was ended.

    Each variant has a folder of its own in `output`, with all that a training run writes; ablation.md, .csv and .json
    have the variants that are done.

    Args:
        config: of the whole model; its `run.output` does not matter.
        data: clips to evaluate on, as for `evaluate_weights`, like the last four.
        only: the variants' names; default: all.

    Raises:
        ConfigError: a name in `only` is that of no variant, or files of the configuration are missing. What training
            and evaluation raise ends the ablation; the variants done before stay.
    """
    chosen = choose(config, only)
    check_files(config, starting=not output.exists(), evaluated=data)
    output.mkdir(parents=True, exist_ok=True)
    options: dict[str, Any] = {"portraits": tuple(portraits), "models": models, "every": every}
    title = f"Variants after {config.run.steps} steps, evaluated on `{data}`; means over clips."
    rows: list[Row] = []
    for number, variant in enumerate(chosen, start=1):
        tqdm.write(f"{variant.name} ({number} of {len(chosen)}): {variant.words}", file=sys.stderr)
        rows.append(_row(variant, data, output, options, batch_size))
        write_table(output, title, rows)
    return rows


def choose(config: TrainConfig, only: Sequence[str]) -> list[Variant]:
    """The variants of these names, in the table's order; all without names. Raises ConfigError."""
    found = variants(config)
    names = [variant.name for variant in found]
    for name in only:
        if name not in names:
            raise ConfigError(f"no variant {name!r} of this configuration; there are {', '.join(names)}")
    return [variant for variant in found if not only or variant.name in only]


def _row(variant: Variant, data: Path, output: Path, options: dict[str, Any], batch_size: int) -> Row:
    """Of one variant, trained and evaluated unless that was done before."""
    folder = output / variant.name
    cache = variant.config.data.cache or output / "frames"  # one for all variants
    config = replace(
        variant.config,
        data=replace(variant.config.data, cache=cache),
        run=replace(variant.config.run, output=folder),
    )
    key = combined(json.dumps(to_plain(config)), str(data.resolve()), repr(options))
    result = _known(folder / RESULT_NAME, key)
    if result is None:
        weights = train.train_talker(config)
        report = evaluate.evaluate_weights(str(weights), data, batch_size=batch_size, **options)
        if report["interrupted"] is not None:
            raise Interruption(
                f"interrupted in the evaluation of {variant.name}; the same command goes on", report["interrupted"]
            )
        for name, reason in report["failed"].items():
            tqdm.write(f"warning: {name}: {reason}; the figures are those of the other clips", file=sys.stderr)
        result = {"key": key, "figures": report["mean"]["result"]}
        write_text(folder / RESULT_NAME, json.dumps(result, indent=1) + "\n")
    parameters = sum(parameter.numel() for parameter in without_storage(config.model).parameters()) / 1e6
    return Row(variant.name, variant.words, parameters, config.run.steps, result["figures"])


def _known(path: Path, key: str) -> dict[str, Any] | None:
    """The result of the same configuration, data and options, where there is one."""
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return result if result.get("key") == key else None
