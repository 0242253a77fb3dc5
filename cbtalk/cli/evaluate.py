"""The command that measures weights on clips."""

import signal
import sys
from pathlib import Path
from typing import Annotated

from cbtalk.cli.machine import use
from cbtalk.errors import ConfigError, Interruption
from cbtalk.file_names import printable
from cbtalk.options.evaluate import Measures, Portraits, Protocol, Shows
from cbtalk.options.machine import Machine
from cbtalk.options.words import FILE, FOLDER, NUMBER, shown


def evaluate(
    data: Annotated[Path, FOLDER],
    output: Annotated[Path | None, shown("FILE", aliases=["-o", "--json"])] = None,
    protocol: Annotated[Protocol, shown()] = "reconstruction",
    pairs: Annotated[Path | None, FILE] = None,
    portraits: Portraits = (),
    metric: Measures = Measures(),
    image: Shows = Shows(),
    machine: Machine = Machine(),
    workers: Annotated[int, NUMBER] = 1,
) -> int:
    """Compare reconstructed clips with the real ones, or measure clips that drive other people.

    A clip that cannot be used is named in the report, and the exit code is 1; the figures are those of the others.
    Stopped by Ctrl-C, the command writes the figures so far, and the same command goes on with the rest. torchrun's
    processes share the clips, as --workers do.

    Examples:

        cbtalk evaluate --data clips --models networks -o figures.json
        cbtalk evaluate --data clips --protocol cross --pairs pairs.csv --weights runs/mini/weights.safetensors

    Args:
        data: Folder of clips: videos, or folders of frames.
        output: The figures as JSON (.json); the same as a Markdown table beside it.
        protocol: The first frame of each clip animated by the rest; or the sources of a list, each by its clip.
        pairs: The list of --protocol cross (.csv), with the columns source, driving, and anchor or anchor_idx.
        workers: Processes that share the clips, and the threads.
    """
    if (protocol == "cross") != (pairs is not None):
        raise ConfigError("--protocol cross and --pairs, its list of sources and driving clips, go together")
    from cbtalk.evaluate import evaluate_weights, markdown
    from cbtalk.evaluate.working import rank
    from cbtalk.precision import dtype_of

    where = use(machine)
    report = evaluate_weights(
        machine.weights,
        data,
        output,
        pairs=pairs,
        portraits=portraits,
        **vars(metric),
        **vars(image),
        workers=workers,
        device=where,
        dtype=dtype_of(machine.precision, where),
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
