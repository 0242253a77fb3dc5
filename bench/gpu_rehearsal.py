"""The GPU check with stand-ins for its steps, each failing in turn: `python bench/gpu_check.py --rehearse`."""

import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import replace
from io import StringIO
from itertools import groupby
from pathlib import Path

from bench.gpu import BATCH, order
from bench.gpu_check import LOG_BYTES, SECONDS, Step, check
from cbtalk.ops.examples import ON_GPU

MOST_FILES, MOST_BYTES = 8, 16 << 20
FAILURE = 3  # the exit code of a stand-in that fails


def rehearse(planned: Sequence[Step]) -> int:
    """Print the time reserved for each step, the files that would come back and what each failure costs; 0 if nothing.

    Once all stand-ins end well and write logs as long as are kept, of bytes that nothing compresses: the sizes printed
    are the largest there can be.
    """
    print("\n".join(_reserved(planned)))
    faults = [fault for failing in (None, *planned) for fault in _faults(planned, failing)]
    print("\n".join(faults) or f"each of {len(planned)} steps failed once and cost no other")
    return int(bool(faults))


def _reserved(planned: Sequence[Step]) -> Iterator[str]:
    """A line for each group: when it begins at the latest, and its seconds."""
    begin = 0.0
    for name, members in groupby(planned, key=lambda step: step.group):
        together = list(members)
        limit = max(step.limit for step in together)
        yield f"{begin:4.0f} s  {name:12} {limit:4.0f} s  {', '.join(step.name for step in together)}"
        begin += limit
    yield f"{begin:4.0f} s  of {SECONDS}"


def _faults(planned: Sequence[Step], failing: Step | None) -> Iterator[str]:
    """The faults in the reports of a check in which one step fails, or none."""
    with tempfile.TemporaryDirectory(prefix="gpu-rehearsal-") as folder:
        out = Path(folder)
        with redirect_stdout(StringIO()):
            outcomes = check([_stand_in(step, out, step is failing, failing is None) for step in planned], out)
        expected = [FAILURE if step is failing else 0 for step in planned]
        title = "no failure" if failing is None else f"{failing.name} fails"
        if [one.code for one in outcomes] != expected:
            yield f"{title}: the steps ended with {[one.code for one in outcomes]}"
        report = (out / "gpu_check.md").read_text()
        yield from (
            f"{title}: {step.name} is not in the report" for step in planned if f"| {step.name} |" not in report
        )
        files = sorted(out.iterdir())
        if failing is None:
            print("\n".join(f"{file.stat().st_size / 2**20:8.2f} MiB  {file.name}" for file in files))
        if len(files) > MOST_FILES:
            yield f"{title}: {len(files)} files, of {MOST_FILES} that come back"
        yield from (f"{title}: {file.name} is too large" for file in files if file.stat().st_size > MOST_BYTES)


def _stand_in(step: Step, out: Path, fails: bool, full: bool) -> Step:
    """Of the same name, group and limit: it writes the same files and a log, and ends."""
    script = f"head -c {LOG_BYTES if full else 64} /dev/urandom | base64; echo {'failed' if fails else 'done'}; "
    if "--json" in step.command:
        file = out / Path(step.command[step.command.index("--json") + 1]).name
        script += f"head -c {_records_bytes()} /dev/zero > {file}; " if not fails else ""
    return replace(step, command=("sh", "-c", f"{script} exit {FAILURE if fails else 0}"))


def _records_bytes() -> int:
    """The bytes of a benchmark's JSON, with a record as long as they get for each case, dtype and side."""
    timing = {"median": 1 / 3, "low": 1 / 3, "high": 1 / 3, "rounds": 31}
    record = {
        "case": "x" * 70,
        "dtype": "bfloat16",
        "side": "x" * 26,
        "graph": timing,
        "eager": timing,
        "remark": "x" * 500,
    }
    return len(json.dumps(record, indent=1)) * sum(1 for _ in order([example.name for example in ON_GPU], BATCH))
