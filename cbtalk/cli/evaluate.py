"""The command that measures weights on clips."""

import signal
import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import arg

from cbtalk.cli.machine import use
from cbtalk.cli.options import Device, Precision
from cbtalk.errors import ConfigError, Interruption
from cbtalk.file_names import printable


def evaluate(
    data: Path,
    output: Annotated[Path | None, arg(aliases=["-o", "--json"])] = None,
    weights: str = "mini",
    protocol: Literal["reconstruction", "cross"] = "reconstruction",
    pairs: Path | None = None,
    portraits: tuple[Path, ...] = (),
    models: Path | None = None,
    sheet: Path | None = None,
    videos: Path | None = None,
    size: int | None = None,
    every: int = 1,
    smooth: float = 0.0,
    batch_size: int = 8,
    workers: int = 1,
    threads: int | None = None,
    device: Device = "auto",
    precision: Precision = "auto",
) -> int:
    """Compare reconstructed clips with the real ones, or measure clips that drive other people.

    A clip that cannot be used is named in the report, and the exit code is 1; the figures are those of the others.
    Stopped by Ctrl-C, the command writes the figures so far, and the same command goes on with the rest. torchrun's
    processes share the clips, as --workers do.

    Args:
        data: Folder of clips: videos, or folders of frames.
        output: The figures as JSON (.json); the same as a Markdown table beside it.
        weights: A bundled model's name, a weights file, or hf:OWNER/NAME[@REVISION] (extra hub).
        protocol: The first frame of each clip animated by the rest; or the sources of a list, each by its clip.
        pairs: The list of --protocol cross (.csv), with the columns source, driving, and anchor or anchor_idx.
        portraits: Pictures, or folders of them, which each clip then drives in relative motion.
        models: Folder of the networks for LPIPS, FID, landmarks, identity, head pose and expression.
        sheet: Contact sheet to write (.png): source, driving and result at several moments.
        videos: Folder for comparison videos: source, driving and result side by side.
        size: Pictures are compared at this size; the model's own without it.
        every: LPIPS, FID and faces are taken from three frames in a row out of 3 x EVERY.
        smooth: Time constant in seconds of a smoothing of the driving motion, as in render.
        batch_size: Frames that the model takes at once.
        workers: Processes that share the clips.
        threads: CPU threads for the model, of all workers together.
        device: Where the model runs; auto takes the GPU if there is one.
        precision: Numbers that the model computes with, but for the keypoints; auto takes bf16 where it is faster,
            else fp32.
    """
    if (protocol == "cross") != (pairs is not None):
        raise ConfigError("--protocol cross and --pairs, its list of sources and driving clips, go together")
    from cbtalk.evaluate import markdown, run
    from cbtalk.evaluate.working import rank
    from cbtalk.precision import dtype_of

    where = use(device, threads)
    report = run(
        weights,
        data,
        output,
        pairs=pairs,
        portraits=portraits,
        models=models,
        sheet=sheet,
        videos=videos,
        size=size,
        every=every,
        smooth=smooth,
        batch_size=batch_size,
        workers=workers,
        device=where,
        dtype=dtype_of(precision, where),
    )
    if rank() == 0:
        print(markdown(report), end="")
    if report["interrupted"] is not None:
        kept = "" if output is None else "; the same command goes on with the rest"
        name = signal.Signals(report["interrupted"]).name
        raise Interruption(f"interrupted by {name}, {len(report['missing'])} not done{kept}", report["interrupted"])
    for name, reason in report["failed"].items():
        print(printable(f"error: {name}: {reason}"), file=sys.stderr)
    return 1 if report["failed"] else 0
