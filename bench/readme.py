"""Writes the tables of README and docs/performance.md from the committed figures, or checks that they agree.

python -m bench.readme [--check]
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import words
from bench.case import Case, Setting
from bench.cases import cases
from bench.generated import replaced
from bench.measure import OURS
from bench.model import BASELINE

ROOT = Path(__file__).parent.parent
FIGURES = ROOT / "bench" / "results" / "epyc-avx512-2cores" / "run.json"
README, PAGE = ROOT / "README.md", ROOT / "docs" / "performance.md"
COMMAND = "python -m bench.readme"

Results = dict[str, Any]


def shown() -> list[Case]:
    """The cases that the page of performance shows."""
    return [case for case in cases(Setting()) if case.shown]


def parts(results: Results) -> dict[Path, list[str]]:
    """The lines of the generated part of README and of the page."""
    return {README: list(_short(results)), PAGE: list(_lines(results))}


def _short(results: Results) -> Iterator[str]:
    """A row for each op, of the first of its cases, and one for the model."""
    facts = results["machine"]
    yield f"| on {facts['cpu']}, {facts['threads']} threads, {facts['month']} | cbtalk | PyTorch | ratio |"
    yield "| --- | --- | --- | --- |"
    records = {record["case"]: record for record in results["ops"]}
    firsts = {case.op: case for case in reversed(shown())}
    for op in dict.fromkeys(case.op for case in shown()):
        record, peer = records[firsts[op].name], firsts[op].shown[0]
        times = [words.duration(record["times"][name]["median"]) for name in (OURS, peer)]
        yield f"| `{op}`{record['case'].removeprefix(op)} | {' | '.join(times)} | {words.ratio(record, peer):.1f} |"
    model = results["model"]
    ours, theirs = (model["times"][name]["median"] for name in ("cbtalk, batch 4", BASELINE))
    yield f"| a frame of the `{model['preset']}` model | {ours:.2f} s | {theirs:.2f} s | {theirs / ours:.1f} |"


def _lines(results: Results) -> Iterator[str]:
    facts = results["machine"]
    machine = f"{facts['cpu']} with {facts['cbtalk cpu level']}, {facts['threads']} threads, torch {facts['torch']}"
    yield f"{machine}, float32, {facts['month']}; medians of interleaved rounds in one run of `python bench/run.py`"
    yield f"(`{FIGURES.relative_to(ROOT)}`). A result is checked against float64 before it is timed. The limit is"
    yield "what this machine's memory, arithmetic or exponentials allow at best, measured in the same run."
    yield ""
    yield "| op | cbtalk | of the limit | peer | ratio |"
    yield "| --- | --- | --- | --- | --- |"
    records = {record["case"]: record for record in results["ops"]}
    for case in shown():
        yield from _rows(records[case.name], case.shown)
    yield ""
    yield f"The cost of a call, from Python to the result on the smallest inputs: {words.calls(results['calls'])}."
    yield ""
    yield from _model(results["model"])
    yield ""
    training = results["training"]
    yield f"A training step ({words.training(training)}, without VGG and guidance): {words.training_speed(training)}."


def _rows(record: Results, peers: tuple[str, ...]) -> Iterator[str]:
    floor, times = record["floor"], record["times"]
    cells = [
        f"`{record['op']}`{record['case'].removeprefix(record['op'])}",
        words.duration(times[OURS]["median"]),
        f"{floor['share']:.0%}, {floor['by']}",
    ]
    for peer in peers:
        against = f"{peer} {words.duration(times[peer]['median'])}", f"{words.ratio(record, peer):.1f}"
        yield "| " + " | ".join([*cells, *against]) + " |"
        cells = [""] * len(cells)


def _model(model: Results) -> Iterator[str]:
    times = model["times"]
    yield f"| `{model['preset']}` model, untrained | seconds a frame | share |"
    yield "| --- | --- | --- |"
    for name in sorted(times, key=lambda name: name != BASELINE):
        seconds = times[name]["median"]
        yield f"| {name} | {seconds:.3f} | {seconds / times[BASELINE]['median']:.2f} |"


def main() -> int:
    """The command line; 1 where --check finds a difference."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 where a table does not agree")
    check = parser.parse_args().check
    differ = False
    for path, lines in parts(json.loads(FIGURES.read_text(encoding="utf-8"))).items():
        before = path.read_text(encoding="utf-8")
        after = replaced(before, COMMAND, lines)
        if check and after != before:
            print(f"{path.name} does not agree with {FIGURES.relative_to(ROOT)}: run python -m bench.readme")
            differ = True
        if not check:
            path.write_text(after, encoding="utf-8")
    return int(differ)


if __name__ == "__main__":
    sys.exit(main())
