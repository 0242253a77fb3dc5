"""The command line: one thin function a command. torch is imported by a command only, so that --help is quick."""

import contextlib
import errno
import io
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import tyro
from tyro.conf import Positional, arg

from cbtalk import __version__
from cbtalk.allocator import keep_freed_memory
from cbtalk.errors import CbtalkError, ConfigError

DESCRIPTION = """Talking heads from one picture. Add --debug to any command to see where an error comes from."""

Device = Literal["auto", "cpu", "cuda"]
SIGNALS = (signal.SIGINT, signal.SIGTERM)
SAME_SIGNAL_SECONDS = 2.0


def render(
    source: Annotated[Path, arg(aliases=["-s"])],
    driving: Annotated[Path, arg(aliases=["-d"])],
    output: Annotated[Path, arg(aliases=["-o"])],
    weights: str = "mini",
    motion: Literal["relative", "absolute"] = "relative",
    adapt_scale: bool = False,
    best_frame: bool = False,
    crop: str | None = None,
    face: str = "largest",
    driving_crop: str | None = None,
    driving_face: str = "longest",
    follow: bool = False,
    start: float = 0.0,
    duration: float | None = None,
    strength: float = 1.0,
    smooth: float = 0.0,
    loop: Literal["ping-pong", "cross-fade"] | None = None,
    fade: float = 0.5,
    audio: str | None = None,
    compare: bool = False,
    paste: bool = False,
    output_size: int | None = None,
    batch_size: int = 4,
    max_frames: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    quiet: bool = False,
) -> None:
    """Animate a portrait by the motion of a video.

    Args:
        source: The portrait: a picture; or a video, each frame of which is animated until one of the videos ends.
        driving: What moves it: a video, or a motion file made by `cbtalk motion`.
        output: The video to write (.mp4, .mov or .mkv).
        weights: A bundled model's name or a weights file.
        motion: Move the source as the driving face moves, or put it where the driving face is.
        adapt_scale: Multiply relative motion by the ratio of the two faces' sizes.
        best_frame: Measure relative motion from the driving frame of each scene most like the source, not its first.
        crop: Square of the source to animate, x,y,size in pixels, or centre; that of a face without it.
        face: Which face of the source: largest, its number from left to right, or x,y near it.
        driving_crop: Square of the driving video to watch, x,y,size in pixels, or centre; that of a face without it.
        driving_face: Which face to watch: longest (in view), largest, its number from left to right, or x,y near it.
        follow: Let the square move with the driving face, for people who walk through the picture.
        start: Seconds of the driving video, or motion file, to leave out; the sound is cut with it.
        duration: Seconds of it to render; to its end without it.
        strength: How strongly to move in relative motion: 0 (not at all) to 2 (twice as much as the driving face).
        smooth: Time constant in seconds of a smoothing of the motion that delays nothing; 0.025 takes out shaking.
        loop: Make one period that a player can repeat without a jump: forth and back, or its end blended into its
            beginning. It has no sound but that of --audio.
        fade: Seconds that the blending of a cross-faded loop takes, at most half of the motion.
        audio: A file whose sound is taken instead of the driving video's, from --start on and played once; or none.
        compare: Write source, driving and result side by side.
        paste: Write the whole source, at its own size (at most 4096 pixels), with the animated square in its place.
        output_size: Side of the output in pixels, even; with --paste that of the longer side.
        batch_size: Frames that the model takes at once.
        max_frames: Stop after this many frames.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
        quiet: No progress and no final line; warnings and errors only.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.media.crop import parse_crop
    from cbtalk.render import DrivingOptions, RenderOptions, render_video

    options = RenderOptions(
        motion=motion,
        adapt_scale=adapt_scale,
        best_frame=best_frame,
        crop=None if crop is None else parse_crop(crop),
        face=parse_choice(face),
        compare=compare,
        paste=paste,
        output_size=output_size,
        strength=strength,
        loop=loop,
        fade=fade,
        audio="driving" if audio is None else "none" if audio == "none" else Path(audio),
        driving=DrivingOptions(
            None if driving_crop is None else parse_crop(driving_crop),
            batch_size,
            max_frames,
            "longest" if driving_face == "longest" else parse_choice(driving_face),
            follow=follow,
            start=start,
            duration=duration,
            smooth=smooth,
        ),
    )
    device = _use(device, threads)
    report = render_video(source, driving, output, options, weights=weights, device=device, progress=not quiet)
    _tell(report, quiet)


def motion(
    driving: Annotated[Path | None, arg(aliases=["-d"])] = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    info: Path | None = None,
    weights: str = "mini",
    crop: str | None = None,
    face: str = "longest",
    follow: bool = False,
    start: float = 0.0,
    duration: float | None = None,
    smooth: float = 0.0,
    batch_size: int = 4,
    max_frames: int | None = None,
    threads: int | None = None,
    device: Device = "auto",
    quiet: bool = False,
) -> None:
    """Write the motion of a video to a motion file, which `cbtalk render` takes in place of the video.

    Args:
        driving: The video.
        output: The motion file to write (.safetensors).
        info: A motion file to tell about instead: its length, its rate, the weights that it fits.
        weights: A bundled model's name or a weights file; render with the same.
        crop: Square of the video to watch, x,y,size in pixels, or centre; that of a face without it.
        face: Which face to watch: longest (in view), largest, its number from left to right, or x,y near it.
        follow: Let the square move with the face, for people who walk through the picture.
        start: Seconds of the video to leave out.
        duration: Seconds of it to take; to its end without it.
        smooth: Time constant in seconds of a smoothing of the motion that delays nothing; 0.025 takes out shaking.
        batch_size: Frames that the model takes at once.
        max_frames: Stop after this many frames.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
        quiet: No progress and no final line; warnings and errors only.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.media.crop import parse_crop
    from cbtalk.render import DrivingOptions, motion_info, write_motion

    if info is not None:
        print(*motion_info(info), sep="\n")
        return
    if driving is None or output is None:
        raise ConfigError("motion needs --driving and --output, or --info and a motion file")
    options = DrivingOptions(
        None if crop is None else parse_crop(crop),
        batch_size,
        max_frames,
        "longest" if face == "longest" else parse_choice(face),
        follow=follow,
        start=start,
        duration=duration,
        smooth=smooth,
    )
    report = write_motion(driving, output, options, weights=weights, device=_use(device, threads), progress=not quiet)
    _tell(report, quiet)


def crop(
    source: Positional[Path],
    output: Annotated[Path, arg(aliases=["-o"])],
    face: str = "largest",
) -> None:
    """Draw what `cbtalk render` finds in a portrait: faces, their numbers and the square that it animates.

    Args:
        source: The portrait: a picture.
        output: The picture to write (.png).
        face: Which face to animate: largest, its number from left to right, or x,y near it.
    """
    from cbtalk.faces import parse_choice
    from cbtalk.render.crop_preview import crop_preview

    print(crop_preview(source, output, parse_choice(face)))


def batch(
    manifest: Positional[Path | None] = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    sources: Path | None = None,
    drivings: Path | None = None,
    pairs: Literal["all", "zip"] = "all",
    defaults: Annotated[tuple[str, ...], arg(name="set")] = (),
    weights: str = "mini",
    workers: int | None = None,
    threads: int | None = None,
    gpus: str | None = None,
    ray: str | None = None,
    device: Device = "auto",
    retries: int = 2,
    motion_cache_mb: int = 1024,
    dry_run: bool = False,
    status: Path | None = None,
    report: Path | None = None,
    quiet: bool = False,
) -> int:
    """Render many videos; stopped at any moment, the same command goes on where it was.

    Args:
        manifest: CSV (.csv, its first line names the columns) or JSON Lines (.jsonl): source, driving, output, and any
            option of `cbtalk render` by its name; paths relative to the manifest, outputs to the folder.
        output: Folder for the videos and the ledger.
        sources: Folder of pictures, in place of a manifest.
        drivings: Folder of driving videos or motion files, each of which drives pictures of the sources.
        pairs: Every picture by every clip, or the first by the first and so on.
        defaults: Options for all jobs that do not have their own: name=value ...
        weights: A bundled model's name or a weights file.
        workers: Processes on the CPU; one for each core without it.
        threads: CPU threads of each worker.
        gpus: Numbers of the GPUs to use, a worker each, or all; all without it.
        ray: Address of a cluster of Ray (auto: the one this machine belongs to), whose nodes share the folders.
        device: auto takes the GPUs if there are any.
        retries: Times that a job is tried again after its worker crashed.
        motion_cache_mb: What motions of driving videos may take in the folder, MiB.
        dry_run: Check everything and show the plan and the time it should take.
        status: Ledger, or folder of a batch, whose state to show.
        report: State of all jobs to write (.csv, .json or .html).
        quiet: No progress and no final line; errors only.
    """
    from cbtalk.batch import command

    if status is not None:
        return command.show_status(status, report)
    if output is None:
        raise ConfigError("--output: name a folder for the videos")
    words = {}
    for word in defaults:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: must be name=value")
        words[name] = value
    options = command.options_of(weights, device, gpus, workers, threads, ray, retries, motion_cache_mb)
    jobs = command.jobs_of(manifest, sources, drivings, pairs, output, words, progress=not quiet)
    return command.show_plan(jobs, options) if dry_run else command.work(jobs, output, options, report, quiet=quiet)


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
    from cbtalk.model.convert import run

    for taken in run(net_g, motion, output, param_key):
        print(taken)


def train(
    config: Positional[Path],
    resume: bool = True,
    max_steps: int | None = None,
    max_seconds: float | None = None,
    output: Annotated[Path | None, arg(aliases=["-o"])] = None,
    data_root: Path | None = None,
    shard_mb: int | None = None,
) -> None:
    """Train a model; a run that was stopped goes on where it was.

    Args:
        config: The configuration file, for example configs/mini.yaml.
        resume: Go on from the newest checkpoint in the output folder.
        max_steps: Stop after this many steps in all.
        max_seconds: Stop after this much time.
        output: Folder for weights, checkpoints and logs, in place of the configuration's.
        data_root: Folder of clips, in place of the configuration's.
        shard_mb: Write checkpoints in files of at most this many MiB each.
    """
    from cbtalk.train import run

    keep_freed_memory()
    weights = run(
        config,
        resume=resume,
        max_steps=max_steps,
        max_seconds=max_seconds,
        output=output,
        data_root=data_root,
        shard_mb=shard_mb,
    )
    print(f"{weights}: trained weights")


def evaluate(
    data: Path,
    output: Annotated[Path | None, arg(aliases=["-o", "--json"])] = None,
    weights: str = "mini",
    portraits: tuple[Path, ...] = (),
    models: Path | None = None,
    sheet: Path | None = None,
    videos: Path | None = None,
    size: int | None = None,
    every: int = 1,
    smooth: float = 0.0,
    batch_size: int = 8,
    threads: int | None = None,
    device: Device = "auto",
) -> None:
    """Compare reconstructed clips with the real ones: the first frame of each animated by the rest.

    Args:
        data: Folder of clips: videos, or folders of frames.
        output: The figures as JSON (.json); the same as a Markdown table beside it.
        weights: A bundled model's name or a weights file.
        portraits: Pictures, or folders of them, which each clip then drives in relative motion.
        models: Folder of the networks for LPIPS, landmarks and identity.
        sheet: Contact sheet to write (.png): source, driving and result at several moments.
        videos: Folder for comparison videos: source, driving and result side by side.
        size: Pictures are compared at this size; the model's own without it.
        every: LPIPS, landmarks and identity are taken from three frames in a row out of 3 x EVERY.
        smooth: Time constant in seconds of a smoothing of the driving motion, as in render.
        batch_size: Frames that the model takes at once.
        threads: CPU threads for the model.
        device: Where the model runs; auto takes the GPU if there is one.
    """
    from cbtalk.evaluate import markdown, run

    report = run(
        weights,
        data,
        output,
        portraits=portraits,
        models=models,
        sheet=sheet,
        videos=videos,
        size=size,
        every=every,
        smooth=smooth,
        batch_size=batch_size,
        device=_use(device, threads),
    )
    print(markdown(report), end="")


def doctor() -> int:
    """Show versions and backends, why any is off, and test every op against its reference."""
    from cbtalk.doctor import run

    return run()


COMMANDS: dict[str, Callable[..., Any]] = {
    "render": render,
    "motion": motion,
    "crop": crop,
    "batch": batch,
    "convert": convert,
    "train": train,
    "evaluate": evaluate,
    "doctor": doctor,
}


class Interrupted(BaseException):
    """A signal that asks the process to end; not an Exception, so that nothing takes it for a failure to mend."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    0: done; 1: the machine or cbtalk failed; 2: the user can mend it; 128 + n: ended by signal n.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):  # a file's name may have characters that the terminal has not
        sys.stdout.reconfigure(errors="backslashreplace")
    if arguments == ["--version"]:
        print(f"cbtalk {__version__}")
        return 0
    # An OpenMP thread that waits by spinning takes the core from whoever it waits for: the encoder's and decoder's
    # threads, or another process. Rendering `mini` beside other work, two Xeon cores, November 2026: 0.13 s of CPU a
    # frame instead of 0.8. Training has the machine to itself, and a thread that sleeps wakes late: a step at
    # 256 x 256, batch 4, took 2.0 s instead of 1.5 (two Xeon cores, November 2026).
    if arguments[:1] != ["train"]:
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    debug = "--debug" in arguments
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        with _raised_signals():
            result: int | None = tyro.extras.subcommand_cli_from_dict(
                COMMANDS, prog="cbtalk", description=DESCRIPTION, args=arguments
            )
        return result or 0
    except (Exception, Interrupted) as failure:
        if debug:
            traceback.print_exc()
        message, code = _explain(failure)
        print(f"error: {message}", file=sys.stderr)
        return code


def _explain(failure: BaseException) -> tuple[str, int]:
    """One line for the user, and the exit code."""
    if isinstance(failure, CbtalkError):
        return " ".join(str(failure).split()), failure.exit_code
    if isinstance(failure, Interrupted):
        return f"interrupted by {failure}", failure.exit_code
    if isinstance(failure, OSError) and failure.errno == errno.ENOSPC:
        return "no space left on the disk", 1
    if isinstance(failure, MemoryError) or type(failure).__name__ == "OutOfMemoryError":
        return "out of memory; a smaller --batch-size needs less", 1
    reason = " ".join(f"{type(failure).__name__}: {failure}".split())
    return f"internal: {reason} (--debug shows where)", 1


@contextlib.contextmanager
def _raised_signals() -> Iterator[None]:
    """SIGINT and SIGTERM as an exception in the main thread, which winds everything up on its way out."""
    last = -SAME_SIGNAL_SECONDS

    def handle(number: int, _frame: FrameType | None) -> None:
        nonlocal last
        # `timeout`, shells and supervisors signal a process and then its group: the second one must not end the
        # winding up. Later ones count again, in case the first exception was lost in a destructor.
        repeated = time.monotonic() - last < SAME_SIGNAL_SECONDS
        last = time.monotonic()
        if not repeated:
            raise Interrupted(number)

    before = {number: signal.signal(number, handle) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _use(device: Device, threads: int | None) -> Literal["cpu", "cuda"]:
    """Set torch's threads and the allocator, and settle the device."""
    import torch

    keep_freed_memory()
    if threads is not None:
        if threads < 1:
            raise ConfigError(f"--threads {threads}: must be 1 or more")
        torch.set_num_threads(threads)
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("--device cuda: torch sees no GPU here; `cbtalk doctor` shows its build")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def _tell(report: Any, quiet: bool) -> None:
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for line in () if quiet else report.lines:
        print(line)
