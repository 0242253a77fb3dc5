"""Commands for models: prepare, train, ablate, convert."""

import os
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Fixed, Positional, Suppress, arg

from cbtalk.allocator import keep_freed_memory

MOST_WORKERS = 8  # by default: each takes some 400 MB


def prepare(
    raw: Positional[Path],
    output: Positional[Path],
    size: Literal[256, 512] = 256,
    frames: bool = False,
    identity: Literal["folder", "file"] = "file",
    annotations: Path | None = None,
    min_seconds: float = 2.0,
    max_seconds: float = 20.0,
    min_face: int | None = None,
    min_sharpness: float = 0.315,
    min_motion: float = 1.5,
    workers: int | None = None,
    quiet: bool = False,
) -> int:
    """Make training clips of raw videos: one person each, in a fixed square around the face.

    Scenes are cut apart and faces followed. A report in the output folder, report.csv, lists every clip, and the reason
    for everything left out. Started again, the command goes on where it was ended; what is finished stays, unless the
    video or the options changed. Exit code 1: some videos could not be read; the others are done.

    Args:
        raw: Folder of videos, with or without folders in it.
        output: Folder for the clips; it is made.
        size: Width and height of the clips in pixels.
        frames: Write a folder of PNG files for each clip, in place of an H.264 file.
        identity: Who is in a video: its first folder below RAW, or its own name up to the first __ or #.
        annotations: VoxCeleb's text files, their folder, or the .csv table of first-order-motion: no faces are looked
            for, and only annotated videos are used.
        min_seconds: Leave out what is shorter.
        max_seconds: Divide what is longer.
        min_face: Least height of a face in the raw video, in pixels; by default half of its height in the clip.
        min_sharpness: Leave out what is more blurred: fine detail as a share of coarse detail.
        min_motion: Leave out faces that hardly move: mean change from the first picture, in levels of 255.
        workers: Processes at work; by default one for each core, but not more than 8.
        quiet: No progress and no summary; warnings and errors only.
    """
    from cbtalk.prepare import PrepareOptions
    from cbtalk.prepare import prepare as run

    options = PrepareOptions(
        size=size,
        frames=frames,
        identity=identity,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        min_face=min_face,
        min_sharpness=min_sharpness,
        min_motion=min_motion,
    )
    workers = min(os.cpu_count() or 1, MOST_WORKERS) if workers is None else workers
    outcome = run(raw, output, options, annotations=annotations, workers=workers, progress=not quiet)
    for failure in outcome.failures:
        print(f"warning: {' '.join(failure.split())}", file=sys.stderr)
    for line in () if quiet else outcome.notes:
        print(line)
    return 1 if outcome.failures else 0


def train(
    config: Positional[Path],
    resume: bool = True,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    data_root: Path | None = None,
    shard_mb: int | None = None,
    settings: Suppress[Fixed[tuple[str, ...]]] = (),
) -> None:
    """Train a model; a run that was stopped goes on where it was.

    On several devices: torchrun --nproc_per_node N -m cbtalk train CONFIG.

    Every setting of the configuration can be given as well: --run.steps 1000 --optimizer.learning-rate 1e-4.
    One interruption lets the step in hand finish and saves; the exit code is then 128 and the signal's number.

    Args:
        config: The configuration file, for example configs/mini.yaml.
        resume: Go on from the newest checkpoint in the output folder.
        max_steps: Stop after this many steps in all.
        max_seconds: Stop after this much time.
        output: Folder for weights, checkpoints and logs, in place of the configuration's.
        data_root: Folder of clips, in place of the configuration's.
        shard_mb: Write checkpoints in files of at most this many MiB each.
        settings: Settings of the configuration, as `split_settings` finds them.
    """
    from cbtalk.model.checkpoint import read_notes
    from cbtalk.train import train_talker
    from cbtalk.train.processes import is_first

    keep_freed_memory()
    weights = train_talker(
        config,
        settings=settings,
        resume=resume,
        max_steps=max_steps,
        max_seconds=max_seconds,
        output=output,
        data_root=data_root,
        shard_mb=shard_mb,
    )
    if not is_first():
        return
    notes = read_notes(weights)
    done = "trained weights" if notes["steps"] == notes["of"] else "weights after {steps} of {of} steps".format(**notes)
    print(f"{weights}: {done}")


def ablate(
    config: Positional[Path],
    data: Path,
    output: Annotated[Path, arg(aliases=["-o"])],
    only: tuple[str, ...] = (),
    list: bool = False,
    portraits: tuple[Path, ...] = (),
    models: Path | None = None,
    every: int = 1,
    batch_size: int = 8,
    settings: Suppress[Fixed[tuple[str, ...]]] = (),
) -> None:
    """Train and evaluate the paper's ablations of a configuration, and write one table.

    The table (ablation.md, .csv, .json) has the variants that are done; started again, the command goes on. Every
    setting of the configuration can be given as well, as for train: --run.steps 1000.

    Args:
        config: The training configuration, for example configs/mini-128.yaml.
        data: Folder of clips to evaluate on.
        output: Folder for the table, and a folder of each variant with its weights and logs.
        only: Names of the variants to take; all without it.
        list: Print the variants and stop.
        portraits: Pictures, or folders of them, which each clip then drives in relative motion.
        models: Folder of the networks for LPIPS, landmarks and identity.
        every: LPIPS, landmarks and identity are taken from three frames in a row out of 3 x EVERY.
        batch_size: Frames that the model takes at once in the evaluation.
        settings: Settings of the configuration, as `split_settings` finds them.
    """
    from cbtalk.ablate import choose, compare_variants
    from cbtalk.train.config import load_config

    keep_freed_memory()
    loaded = load_config(config, settings)
    if list:
        for variant in choose(loaded, only):
            print(f"{variant.name}: {variant.words}")
        return
    compare_variants(
        loaded,
        data,
        output,
        only=only,
        portraits=portraits,
        models=models,
        every=every,
        batch_size=batch_size,
    )
    print((output / "ablation.md").read_text(encoding="utf-8"), end="")


def split_settings(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """Takes settings of a configuration, --section.name and their values, out of the arguments of a command."""
    own: list[str] = []
    settings: list[str] = []
    into = own
    for argument in arguments:
        if argument.startswith("--"):
            into = settings if "." in argument.partition("=")[0] else own
        into.append(argument)
    return own, tuple(settings)


def convert(
    net_g: Path,
    motion: Path,
    output: Annotated[Path, arg(aliases=["-o"])],
    param_key: Literal["auto", "params_ema", "params"] = "auto",
) -> None:
    """Make a weights file of the paper's released checkpoints.

    Args:
        net_g: net_g_latest.pth: encoder, generator and codebooks.
        motion: net_motion_estimator_latest.pth.
        output: The weights file to write (.safetensors).
        param_key: Which parameters of net_g to take; auto takes the averaged ones where there are some.
    """
    from cbtalk.model.convert import convert_checkpoints

    for taken in convert_checkpoints(net_g, motion, output, param_key):
        print(taken)
