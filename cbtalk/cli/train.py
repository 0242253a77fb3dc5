"""Commands for models: prepare, train, ablate, convert."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Fixed, Positional, Suppress

from cbtalk.allocator import keep_freed_memory
from cbtalk.options.evaluate import Portraits, Sampling
from cbtalk.options.machine import Quiet
from cbtalk.options.prepare import Clips
from cbtalk.options.train import Folders, Stops
from cbtalk.options.words import FILE, FOLDER, NUMBER, OUTPUT, OUTPUT_FOLDER, Flag, shown

MOST_WORKERS = 8  # by default: each takes some 400 MB
_OPTION = re.compile("--|-[A-Za-z](=|$)")  # no negative number

Config = Positional[Annotated[Path, shown("CONFIG")]]
ShowSettings = Annotated[bool, shown(name="settings")]
Settings = Suppress[Fixed[tuple[str, ...]]]  # of the configuration, as `split_settings` finds them


def prepare(
    raw: Positional[Annotated[Path, shown("RAW")]],
    output: Positional[Annotated[Path, FOLDER]],
    annotations: Annotated[Path | None, shown("FILE|FOLDER")] = None,
    clip: Clips = Clips(),
    workers: Annotated[int | None, NUMBER] = None,
    quiet: Quiet = False,
) -> int:
    """Make training clips of raw videos: one person each, in a fixed square around the face.

    Scenes are cut apart and faces followed. A report in the output folder, report.csv, lists every clip, and the reason
    for everything left out. Started again, the command goes on where it was ended; what is finished stays, unless the
    video or the options changed. Exit code 1: some videos could not be read; the others are done.

    Examples:

        cbtalk prepare raw clips
        cbtalk prepare raw clips --size 512 --identity folder --max-seconds 4

    Args:
        raw: Folder of videos, with or without folders in it.
        output: Folder for the clips; it is made.
        annotations: VoxCeleb's text files or the .csv table of first-order-motion: whom to take, in place of any face.
        workers: Processes at work; by default one for each core, but not more than 8.
    """
    from cbtalk.prepare import PrepareOptions
    from cbtalk.prepare import prepare as run

    workers = min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else workers
    options = PrepareOptions(**vars(clip))
    outcome = run(raw, output, options, annotations=annotations, workers=workers, progress=not quiet)
    for failure in outcome.failures:
        print(f"warning: {' '.join(failure.split())}", file=sys.stderr)
    for line in () if quiet else outcome.notes:
        print(line)
    return 1 if outcome.failures else 0


def train(
    config: Config,
    fresh: Flag = False,
    folder: Folders = Folders(),
    stop: Stops = Stops(),
    show_settings: ShowSettings = False,
    settings: Settings = (),
) -> None:
    """Train a model; a run that was stopped goes on where it was.

    Every setting of the configuration can be given as well, as in the second example; --settings lists them. On several
    devices: torchrun --nproc_per_node N -m cbtalk train CONFIG. One interruption lets the step in hand finish and
    saves; the exit code is then 128 and the signal's number.

    Examples:

        cbtalk train configs/mini-128.yaml --data-root clips --data.validation none --perceptual.weights none
        cbtalk train configs/mini.yaml --max-seconds 3600 --run.steps 1000 --optimizer.learning-rate 1e-4
        cbtalk train configs/mini.yaml --settings

    Args:
        config: The configuration file, for example configs/mini.yaml.
        fresh: Begin a new run, and refuse an output folder that holds one.
        show_settings: Print every setting of the configuration, its value and its meaning, and stop.
    """
    if show_settings:
        _print_settings(config, settings)
        return
    from cbtalk.model.checkpoint import read_notes
    from cbtalk.train import train_talker
    from cbtalk.train.processes import is_first

    keep_freed_memory()
    weights = train_talker(config, settings=settings, resume=not fresh, **vars(folder), **vars(stop))
    if not is_first():
        return
    notes = read_notes(weights)
    done = "trained weights" if notes["steps"] == notes["of"] else "weights after {steps} of {of} steps".format(**notes)
    print(f"{weights}: {done}")


def ablate(
    config: Config,
    data: Annotated[Path, FOLDER],
    output: Annotated[Path, OUTPUT_FOLDER],
    only: Annotated[tuple[str, ...], shown("NAME ...")] = (),
    list: Flag = False,
    portraits: Portraits = (),
    metric: Sampling = Sampling(),
    show_settings: ShowSettings = False,
    settings: Settings = (),
) -> None:
    """Train and evaluate the paper's ablations of a configuration, and write one table.

    The table (ablation.md, .csv, .json) has the variants that are done; started again, the command goes on. Every
    setting of the configuration can be given as well, as for train; --settings lists them.

    Examples:

        cbtalk ablate configs/mini-128.yaml --data clips -o ablation --run.steps 1000
        cbtalk ablate configs/mini-128.yaml --data clips -o ablation --list

    Args:
        config: The training configuration, for example configs/mini-128.yaml.
        data: Folder of clips to evaluate on.
        output: Folder for the table, and a folder of each variant with its weights and logs.
        only: Names of the variants to take; all without it.
        list: Print the variants and stop.
        show_settings: Print every setting of the configuration, its value and its meaning, and stop.
    """
    if show_settings:
        _print_settings(config, settings)
        return
    from cbtalk.ablate import choose, compare_variants
    from cbtalk.train.config import load_config

    keep_freed_memory()
    loaded = load_config(config, settings)
    if list:
        for variant in choose(loaded, only):
            print(f"{variant.name}: {variant.words}")
        return
    compare_variants(loaded, data, output, only=only, portraits=portraits, **vars(metric))
    print((output / "ablation.md").read_text(encoding="utf-8"), end="")


def _print_settings(config: Path, settings: Sequence[str]) -> None:
    from cbtalk.train.config import load_config
    from cbtalk.train.settings_text import settings_text

    print(settings_text(load_config(config, settings)))


def split_settings(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Takes settings of a configuration, --section.name and their values, out of the arguments of a command."""
    own: list[str] = []
    settings: list[str] = []
    into = own
    for argument in arguments:
        if _OPTION.match(argument):
            into = settings if "." in argument.partition("=")[0] else own
        into.append(argument)
    return own, tuple(settings)


def convert(
    net_g: Annotated[Path, FILE],
    motion: Annotated[Path, FILE],
    output: Annotated[Path, OUTPUT],
    param_key: Annotated[Literal["auto", "params_ema", "params"], shown()] = "auto",
) -> None:
    """Make a weights file of the paper's released checkpoints.

    Examples:

        cbtalk convert --net-g net_g_latest.pth --motion net_motion_estimator_latest.pth -o paper.safetensors

    Args:
        net_g: net_g_latest.pth: encoder, generator and codebooks.
        motion: net_motion_estimator_latest.pth.
        output: The weights file to write (.safetensors).
        param_key: Which parameters of net_g to take; auto takes the averaged ones where there are some.
    """
    from cbtalk.model.convert import convert_checkpoints

    for taken in convert_checkpoints(net_g, motion, output, param_key):
        print(taken)
