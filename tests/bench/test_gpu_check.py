import json
import sys
from pathlib import Path

import pytest

from bench import gpu_check
from bench.gpu_check import Step, main, markdown, run_step


def step(code: str, limit: float = 60) -> Step:
    return Step("a step", (sys.executable, "-c", code), limit)


def test_a_step_leaves_its_output_and_its_last_line(tmp_path: Path) -> None:
    outcome = run_step(step("print('first'); print('last')"), tmp_path / "log", 100)
    assert (outcome.code, outcome.summary) == (0, "last")
    assert (tmp_path / "log").read_text() == "first\nlast\n"


def test_a_step_that_fails_is_told_from_one_that_hangs(tmp_path: Path) -> None:
    failed = run_step(step("raise SystemExit(3)"), tmp_path / "log", 100)
    hung = run_step(step("import time; print('busy', flush=True); time.sleep(100)", limit=5), tmp_path / "log", 100)
    assert (failed.code, hung.code) == (3, None)
    assert hung.summary == "cut off: busy" and hung.seconds < 50


def test_a_step_is_not_begun_without_time(tmp_path: Path) -> None:
    outcome = run_step(step("open('begun', 'w')"), tmp_path / "log", 3)
    assert outcome.code is None and "out of time" in outcome.summary


def test_losing_one_part_costs_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [
        Step("build", (sys.executable, "-c", "raise SystemExit(1)"), 60),
        Step("bench", (sys.executable, "-c", "print('flow_warp 1.0 us')"), 60),
    ]
    monkeypatch.setattr(gpu_check, "steps", lambda out: iter(parts))
    monkeypatch.setattr(sys, "argv", ["gpu_check", "--out", str(tmp_path / "results")])
    assert main() == 1
    written = json.loads((tmp_path / "results" / "gpu_check.json").read_text())
    assert [(one["name"], one["code"]) for one in written] == [("build", 1), ("bench", 0)]
    report = (tmp_path / "results" / "gpu_check.md").read_text()
    assert "| build | exit 1 |" in report and "flow_warp 1.0 us" in report


def test_a_report_without_a_benchmark_says_so(tmp_path: Path) -> None:
    assert "not run" in markdown([], tmp_path)


def test_the_steps_name_files_that_exist(tmp_path: Path) -> None:
    for one in gpu_check.steps(tmp_path):
        for part in one.command:
            if part.startswith("tests/"):
                assert (gpu_check.ROOT / part).exists(), part
            if part.startswith("bench."):
                assert (gpu_check.ROOT / f"{part.replace('.', '/')}.py").exists(), part


def test_every_file_with_tests_for_a_gpu_is_run(tmp_path: Path) -> None:
    named = {part for one in gpu_check.steps(tmp_path) for part in one.command}
    tests = [file for file in gpu_check.ROOT.glob("tests/**/test_*.py") if file != Path(__file__)]
    on_gpu = {str(file.relative_to(gpu_check.ROOT)) for file in tests if "tests.kernels.where" in file.read_text()}
    assert len(on_gpu) > 5 and on_gpu - named == set()
