"""Everything that a machine with a GPU can tell, in one command and ten minutes.

python bench/gpu_check.py [--out bench/results/<machine>]

Builds what is missing, runs every GPU test, the sanitizers and the kernel benchmarks, each in a process of its own with
a time limit, so that losing one part costs no other. Writes gpu_check.json, gpu_check.md, gpu.json and a log a step.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":
    # As a script, its own folder heads the path; the checkout's root makes cbtalk importable instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cbtalk.ops.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 570  # of the ten minutes


@dataclass(frozen=True)
class Step:
    """One part of the check: a command, and the most seconds it may take."""

    name: str
    command: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step; `code` is None where it was cut off or could not begin."""

    name: str
    code: int | None
    seconds: float
    summary: str


def steps(out: Path) -> Iterator[Step]:
    """In the order of what is to be known first."""
    python = sys.executable
    pytest = (python, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider")
    yield Step("build", (python, "setup.py", "build_ext", "--inplace"), 240)
    yield Step("smoke", (python, "-m", "bench.gpu_smoke"), 60)
    for backend in ("triton", "cuda"):
        for base in dict.fromkeys(example.base for example in EXAMPLES if backend in example.backends):
            tests = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob(f"tests/kernels/test_{base}*.py"))
            yield Step(f"tests {base} {backend}", (*pytest, *tests, "-k", f"{backend} and not compile"), 90)
    others = (
        "kernels/test_on_gpu.py",
        "kernels/test_dispatch.py",
        "model/test_transfers.py",
        "model/test_cuda_graphs.py",
    )
    yield Step("tests of streams, graphs, sizes, dispatch", (*pytest, *(f"tests/{file}" for file in others)), 90)
    yield Step("bench", (python, "-m", "bench.gpu", "--json", str(out / "gpu.json"), "--seconds", "200"), 260)
    sanitizer = shutil.which("compute-sanitizer")
    for tool in ("memcheck", "racecheck"):
        if sanitizer is not None:
            command = (sanitizer, "--tool", tool, "--error-exitcode", "9", python, "-m", "bench.gpu_smoke")
            yield Step(f"sanitizer {tool}", command, 60)


def run_step(step: Step, log: Path, remaining: float) -> Outcome:
    """One step, its output in `log`."""
    limit = min(step.limit, remaining)
    if limit < 5:
        return Outcome(step.name, None, 0.0, "not begun: out of time")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    begin = time.monotonic()
    with log.open("w") as file:
        try:
            code = subprocess.run(
                step.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, timeout=limit, env=environment
            ).returncode
        except subprocess.TimeoutExpired:
            code = None
    lines = [text for text in log.read_text(errors="replace").splitlines() if text.strip()]
    summary = lines[-1][:200] if lines else "no output"
    return Outcome(step.name, code, time.monotonic() - begin, summary if code is not None else f"cut off: {summary}")


def markdown(outcomes: list[Outcome], out: Path) -> str:
    """The report: a table of the steps, then the lines of the benchmark."""
    rows = ["| step | result | seconds | last line |", "| --- | --- | --- | --- |"]
    for one in outcomes:
        result = "ok" if one.code == 0 else "not finished" if one.code is None else f"exit {one.code}"
        summary = one.summary.replace("|", "/")
        rows.append(f"| {one.name} | {result} | {one.seconds:.0f} | {summary} |")
    bench = out / "bench.log"
    table = bench.read_text(errors="replace") if bench.exists() else "not run\n"
    return "# GPU check\n\n" + "\n".join(rows) + f"\n\n```\n{table}```\n"


def folder() -> Path:
    """bench/results/<GPU>, or the host's kind where the driver does not answer."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader", "--id=0"]
    found = subprocess.run(command, capture_output=True, text=True) if shutil.which("nvidia-smi") else None
    name = found.stdout if found is not None and found.returncode == 0 else f"no-gpu-{platform.machine()}"
    return ROOT / "bench" / "results" / re.sub(r"[^a-z0-9]+", "-", name.strip().lower()).strip("-")


def main() -> int:
    """0 where every step ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the reports (bench/results/<machine>)")
    out = (parser.parse_args().out or folder()).resolve()
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + SECONDS
    outcomes = []
    for step in steps(out):
        outcomes.append(run_step(step, out / f"{step.name.replace(' ', '-')}.log", end - time.monotonic()))
        print(f"{step.name}: {outcomes[-1].code} in {outcomes[-1].seconds:.0f} s: {outcomes[-1].summary}", flush=True)
        # After each step: whoever cuts this short still has what was learnt.
        (out / "gpu_check.json").write_text(json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
        (out / "gpu_check.md").write_text(markdown(outcomes, out))
    return int(any(one.code != 0 for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
