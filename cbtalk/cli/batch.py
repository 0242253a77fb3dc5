"""The command for many renders."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional

from cbtalk.errors import ConfigError
from cbtalk.options.batch import Limits, Pairs, Workers
from cbtalk.options.machine import Quiet
from cbtalk.options.words import FILE, OUTPUT_FOLDER, Flag, shown


def batch(
    manifest: Positional[Annotated[Path | None, shown("[MANIFEST]")]] = None,
    output: Annotated[Path | None, OUTPUT_FOLDER] = None,
    defaults: Annotated[tuple[str, ...], shown("NAME=VALUE ...", name="set")] = (),
    dry_run: Flag = False,
    report: Annotated[Path | None, FILE] = None,
    status: Annotated[Path | None, shown("FOLDER|FILE")] = None,
    folder: Pairs = Pairs(),
    machine: Workers = Workers(),
    limit: Limits = Limits(),
    quiet: Quiet = False,
) -> int:
    """Render many videos; stopped at any moment, the same command goes on where it was.

    The first line of a CSV file names its columns, with commas between them; options are columns too, spelled with
    underscores or dashes (max_frames). Paths are relative to the manifest, outputs to the folder; all may be URLs as
    well (s3://...; extra remote).

    Examples:

        cbtalk batch jobs.csv -o videos --report videos.html
        cbtalk batch --sources portraits --drivings clips -o videos --set strength=1.2 --dry-run
        cbtalk batch --status videos

    Args:
        manifest: The jobs, CSV (.csv) or JSON Lines (.jsonl): source, driving, output, and any option of render.
        output: Folder for the ledger, and the videos but for those with URLs.
        defaults: Options for all jobs that do not have their own.
        dry_run: Check everything but faces, which a job looks for, and show the plan and its time.
        report: State of all jobs to write (.csv, .json or .html).
        status: Ledger, or folder of a batch, whose state to show instead.
    """
    from cbtalk.batch import command

    if status is not None:
        return command.show_status(status, report)
    if output is None:
        if manifest is None and folder == Pairs():
            raise ConfigError(
                "name the jobs, by a manifest or --sources and --drivings, and --output, a folder for the videos"
            )
        raise ConfigError("--output: name a folder for the videos")
    if ":/" in str(output):
        raise ConfigError(f"--output {output}: name a folder of this machine; outputs in a manifest may be URLs")
    options = command.options_of(machine, limit)
    jobs = command.jobs_of(
        manifest,
        folder,
        output,
        _words(defaults),
        machine.weights,
        local=machine.ray is None,
        progress=not quiet,
    )
    if dry_run:
        return command.show_plan(jobs, output, options)
    return command.work(jobs, output, options, report, quiet=quiet)


def _words(defaults: Sequence[str]) -> dict[str, str]:
    words = {}
    for word in defaults:
        name, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"--set {word}: must be name=value")
        words[name] = value
    return words
