"""Everything that a machine with a GPU can tell, in one command and ten minutes.

python bench/gpu_check.py [--out bench/results/<machine>] [--rehearse]

Builds the library where none was brought along, runs every op, the kernel benchmark, the whole model, every GPU test, a
profiler and the sanitizers, each in a process of its own with a time limit, so that losing one part costs no other.
Writes gpu_check.md, gpu_check.json, gpu.json, gpu_model.json and logs.tar.gz, with a log a step.

A library to bring along is built elsewhere, for one architecture alone, into cbtalk/_lib:
CBTALK_CUDA_ARCHS=90a-real python setup.py build_ext --inplace. --rehearse needs no GPU: it puts stand-ins in the place
of the steps and lets each fail in turn.
"""

import argparse
import io
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path

if __name__ == "__main__":
    # As a script, its own folder heads the path; the checkout's root makes cbtalk importable instead.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from cbtalk.atomic import atomic_path, write_text
from cbtalk.ops.examples import EXAMPLES

ROOT = Path(__file__).resolve().parents[1]
LIBRARY = ROOT / "cbtalk" / "_lib" / "libcbtalk_cuda.so"
SECONDS = 570  # of the ten minutes
_SANITIZER = "compute-sanitizer"
LOG_BYTES = 1 << 19  # of each log its end; thirty logs of this size that nothing compresses are below 16 MiB


@dataclass(frozen=True)
class Step:
    """One part of the check: a command, and the most seconds it may take. Neighbours of one group run together."""

    name: str
    group: str
    command: tuple[str, ...]
    limit: float


@dataclass(frozen=True)
class Outcome:
    """The outcome of a step; `code` is None where it was cut off or could not begin."""

    name: str
    code: int | None
    seconds: float
    summary: str


def steps(out: Path, everything: bool = False) -> Iterator[Step]:
    """In the order of what is to be known first; the limits of all groups together are within SECONDS.

    everything: as where no library was brought along and every tool is there.
    """
    python = sys.executable
    build = Step("build", "build", (python, "setup.py", "build_ext", "--inplace"), 110)
    if not (brought := LIBRARY.exists() and not everything):
        yield build
    yield Step("smoke", "smoke", (python, "-m", "bench.gpu_smoke"), 50)
    bench = (python, "-m", "bench.gpu", "--json", str(out / "gpu.json"), "--seconds", "180")
    yield Step("bench", "bench", bench, 200)
    model = (python, "-m", "bench.gpu_model", "--json", str(out / "gpu_model.json"), "--seconds", "50")
    yield Step("model", "model", model, 65)
    yield from _tests(python, 60 + build.limit * brought)
    # Both slow what they watch down, and the tools are not everywhere.
    if (profiler := "ncu" if everything else shutil.which("ncu")) is not None:
        kernels = "regex:warp_|attention_|nearest_code|group_norm|(fwd|bwd)_kernel"
        options = ("--set", "basic", "--clock-control", "none", "--profile-from-start", "off", "--kernel-name", kernels)
        yield Step("profile", "profile", (profiler, *options, python, "-m", "bench.gpu_once"), 45)
    if (sanitizer := _SANITIZER if everything else shutil.which(_SANITIZER)) is not None:
        for tool in ("memcheck", "racecheck", "synccheck"):
            watched = ("--tool", tool, "--error-exitcode", "9", "--kernel-name", "kernel_substring=cbtalk")
            smoke = (python, "-m", "bench.gpu_smoke", "--backend", "cuda")
            yield Step(f"sanitizer {tool}", "sanitizers", (sanitizer, *watched, *smoke), 40)


def _tests(python: str, limit: float) -> Iterator[Step]:
    """The tests of each op and backend, and what concerns all ops."""
    pytest = (python, "-m", "pytest", "-q", "--no-header", "--tb=short", "-p", "no:cacheprovider")
    for backend in ("triton", "cuda"):
        for base in dict.fromkeys(example.base for example in EXAMPLES if backend in example.backends):
            tests = sorted(str(file.relative_to(ROOT)) for file in ROOT.glob(f"tests/kernels/test_{base}*.py"))
            command = (*pytest, *tests, "-k", f"{backend} and not compile")
            yield Step(f"tests {base} {backend}", "tests", command, limit)
    others = (
        "kernels/test_on_gpu.py",
        "kernels/test_dispatch.py",
        "model/test_transfers.py",
        "model/test_cuda_graphs.py",
    )
    for file in others:
        name = Path(file).stem.removeprefix("test_").replace("_", " ")
        yield Step(f"tests {name}", "tests", (*pytest, f"tests/{file}"), limit)


def run(step: Step, log: Path, remaining: float) -> Outcome:
    """One step, its output in `log`; what it started ends with it."""
    limit = min(step.limit, remaining)
    if limit < 5:
        return Outcome(step.name, None, 0.0, "not begun: out of time")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", "CBTALK_CUDA_ARCHS": architecture()}
    begin = time.monotonic()
    with log.open("w") as file:
        try:
            process = subprocess.Popen(
                step.command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, env=environment, start_new_session=True
            )
        except OSError as reason:
            return Outcome(step.name, None, 0.0, f"not begun: {reason}")
        code = _ended(process, limit)
    lines = [text for text in tail(log).splitlines() if text.strip()]
    summary = lines[-1][:200] if lines else "no output"
    return Outcome(step.name, code, time.monotonic() - begin, summary if code is not None else f"cut off: {summary}")


def _ended(process: "subprocess.Popen[bytes]", limit: float) -> int | None:
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # its compilers and workers too
        process.wait()
        return None


def check(planned: Sequence[Step], out: Path) -> list[Outcome]:
    """Runs the steps, group by group, and writes the reports after each group: a check cut short loses no more."""
    out.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + SECONDS
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        logs = {step.name: Path(folder) / f"{step.name.replace(' ', '-')}.log" for step in planned}
        for _, members in groupby(planned, key=lambda step: step.group):
            together = list(members)
            with ThreadPoolExecutor(len(together)) as pool:
                for one in pool.map(lambda step: run(step, logs[step.name], end - time.monotonic()), together):
                    print(f"{one.name}: {one.code} in {one.seconds:.0f} s: {one.summary}", flush=True)
                    outcomes.append(one)
            write_text(out / "gpu_check.json", json.dumps([asdict(one) for one in outcomes], indent=1) + "\n")
            write_text(
                out / "gpu_check.md", markdown(outcomes, [logs[name] for name in ("bench", "model") if name in logs])
            )
            _pack([log for log in logs.values() if log.exists()], out / "logs.tar.gz")
    return outcomes


def markdown(outcomes: Sequence[Outcome], tables: Sequence[Path]) -> str:
    """The report: a table of the steps, then the output of those whose output is a table."""
    rows = ["| step | result | seconds | last line |", "| --- | --- | --- | --- |"]
    for one in outcomes:
        result = "ok" if one.code == 0 else "not finished" if one.code is None else f"exit {one.code}"
        summary = one.summary.replace("|", "/")
        rows.append(f"| {one.name} | {result} | {one.seconds:.0f} | {summary} |")
    texts = [f"## {log.stem}\n\n```\n{tail(log) if log.exists() else 'not run'}\n```\n" for log in tables]
    return "\n".join(["# GPU check\n", *rows, "", *texts])


def tail(log: Path) -> str:
    """The end of a log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - LOG_BYTES))
        return file.read().decode(errors="replace")


def _pack(logs: Sequence[Path], target: Path) -> None:
    with atomic_path(target) as temporary, tarfile.open(temporary, "w:gz") as archive:
        for log in logs:
            text = tail(log).encode()[-LOG_BYTES:]
            entry = tarfile.TarInfo(log.name)
            entry.size = len(text)
            archive.addfile(entry, io.BytesIO(text))


def _asked(query: str) -> str:
    """The line of nvidia-smi about the first GPU, or nothing."""
    try:
        command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader", "--id=0"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def architecture() -> str:
    """That of the GPU, as CMake writes it, or nothing, for all: the others would take most of the build's time."""
    found = re.fullmatch(r"(\d+)\.(\d)", _asked("compute_cap"))
    if found is None:
        return ""
    number = found[1] + found[2]
    return f"{number}a-real" if number == "90" else f"{number}-real"


def folder() -> Path:
    """bench/results/<GPU>, or the host's kind where the driver does not answer."""
    name = _asked("name") or f"no-gpu-{platform.machine()}"
    return ROOT / "bench" / "results" / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def main() -> int:
    """0 where every step ended well."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="folder of the reports (bench/results/<machine>)")
    parser.add_argument("--rehearse", action="store_true", help="stand-ins for the steps, each failing in turn")
    arguments = parser.parse_args()
    if arguments.rehearse:
        from bench.gpu_rehearsal import rehearse

        return rehearse(list(steps(Path("out"), everything=True)))
    out = (arguments.out or folder()).resolve()
    return int(any(one.code != 0 for one in check(list(steps(out)), out)))


if __name__ == "__main__":
    sys.exit(main())
