"""The command for many renders."""

from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from cbtalk.cli.options import Device, Precision
from cbtalk.errors import ConfigError


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
    precision: Precision = "auto",
    retries: int = 2,
    motion_cache_mb: int = 1024,
    download_cache_mb: int = 2048,
    dry_run: bool = False,
    status: Path | None = None,
    report: Path | None = None,
    quiet: bool = False,
) -> int:
    """Render many videos; stopped at any moment, the same command goes on where it was.

    Args:
        manifest: CSV (.csv, its first line names the columns) or JSON Lines (.jsonl): source, driving, output, and any
            option of `cbtalk render` by its name; paths relative to the manifest, outputs to the folder, or URLs
            (s3://...; extra remote).
        output: Folder for the ledger, and the videos but for those with URLs.
        sources: Folder of pictures, in place of a manifest.
        drivings: Folder of driving videos or motion files, each of which drives pictures of the sources.
        pairs: Every picture by every clip, or the first by the first and so on.
        defaults: Options for all jobs that do not have their own: name=value ...
        weights: A bundled model's name, a weights file, or hf:OWNER/NAME[@REVISION] (extra hub).
        workers: Processes on the CPU; one for each core without it.
        threads: CPU threads of each worker; the cores divided among the workers without it.
        gpus: Numbers of the GPUs to use, a worker each, or all; all without it.
        ray: Address of a cluster of Ray (auto: the one this machine belongs to), whose nodes share the folders,
            or whose jobs have URLs.
        device: auto takes the GPUs if there are any.
        precision: Numbers that the model computes with, but for the keypoints, in every job; auto takes bf16 where it
            is faster on this machine, else fp32. What was rendered in another precision is rendered anew.
        retries: Times that a job is tried again after its worker crashed or a transfer failed.
        motion_cache_mb: What motions of driving videos may take in the folder, MiB.
        download_cache_mb: What each worker's copies of files behind URLs may take there while it works, MiB.
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
    if ":/" in str(output):
        raise ConfigError(f"--output {output}: name a folder of this machine; outputs in a manifest may be URLs")
    words = {}
    for word in defaults:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: must be name=value")
        words[name] = value
    options = command.options_of(
        weights, device, precision, gpus, workers, threads, ray, retries, motion_cache_mb, download_cache_mb
    )
    jobs = command.jobs_of(
        manifest, sources, drivings, pairs, output, words, weights, local=ray is None, progress=not quiet
    )
    if dry_run:
        return command.show_plan(jobs, output, options)
    return command.work(jobs, output, options, report, quiet=quiet)
